"""The devices that operators are tested on."""

from __future__ import annotations

import pytest
import torch

from sa_layers.ops import extension

NO_CUDA = "no GPU" if not torch.cuda.is_available() else extension.why_not_cuda()
on_devices = pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(NO_CUDA is not None, reason=str(NO_CUDA)))]
)
