"""The memory format of a map: a module returns that of its input, in training as in evaluation."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention, SelfAttentionBlock
from sa_layers.models import SelfAttentionNetwork
from sa_layers.models.self_attention_stage import SelfAttentionStage
from sa_layers.ops import fused
from tests.sampling import sample

PLAIN: dict[str, Any] = {"norm_layer": nn.BatchNorm2d, "act_layer": nn.ReLU}
MODULES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "pairwise": (lambda: PairwiseSelfAttention(8, 8, 3), 8),
    "patchwise": (lambda: PatchwiseSelfAttention(8, 8, 3), 8),
    "strided": (lambda: PatchwiseSelfAttention(8, 8, 3, stride=2), 8),
    "one channel": (lambda: PairwiseSelfAttention(1, 1, 3, share=1, relation_channels=2), 1),
    "block": (lambda: SelfAttentionBlock(32, 3), 32),
    "patchwise block": (lambda: SelfAttentionBlock(32, 3, "patchwise"), 32),
    "stage": (lambda: SelfAttentionStage(8, 32, 1, 3, 2, **PLAIN), 8),
    "network": (lambda: SelfAttentionNetwork((1,) * 5, widths=(32,) * 5, kernel_sizes=(3,) * 5), 3),
    "network of grey images": (
        lambda: SelfAttentionNetwork((1,) * 5, "patchwise", 1, widths=(32,) * 5, kernel_sizes=(3,) * 5),
        1,
    ),
}
FORMATS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
SIZES = {"map": (6, 5), "row": (2, 6), "one pixel": (1, 1)}


def outputs(module: nn.Module, features: Tensor) -> Tensor:
    result = module(features)
    return result[-1] if isinstance(result, tuple) else result


@pytest.mark.parametrize(("name", "form", "size"), sample(product(MODULES, FORMATS, SIZES), 24))
def test_is_that_of_the_input(name: str, form: str, size: str) -> None:
    """In training, in evaluation with and without fused operators; of a batch and of one image."""
    make, channels = MODULES[name]
    module, (height, width) = make(), SIZES[size]
    scale = 32 if "network" in name else 2 if name == "stage" else 1
    for batch in (1, 2):
        features = torch.randn(batch, channels, height * scale, width * scale)
        # unlike .to(), this sets all strides: of maps with one channel or one pixel, too
        features = torch.empty_like(features, memory_format=FORMATS[form]).copy_(features)
        results = []
        if batch > 1:
            results.append(outputs(module.train(), features))
        with torch.no_grad():
            results.append(outputs(module.eval(), features))
            with fused(False):
                results.append(outputs(module, features))
        for result in results:
            assert result.is_contiguous(memory_format=FORMATS[form])
            if form == "contiguous" or size != "one pixel":  # torch's sums and norms make such a map contiguous as well
                assert result.stride() == torch.empty_like(result, memory_format=FORMATS[form]).stride()
            if form == "contiguous":
                result.view(-1)
