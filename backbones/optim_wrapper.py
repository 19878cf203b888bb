"""Training in bfloat16 on any device, CPUs too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from torch import nn

from sa_layers.registry import OPTIM_WRAPPERS


@MMENGINE_OPTIM_WRAPPERS.register_module()
@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """An ``OptimWrapper`` whose forward passes run under ``torch.autocast`` in bfloat16, on the model's device.

    bfloat16 has the exponents of float32, so the loss needs no scaling. Parameters, their gradients and the states of
    the optimizer stay in float32. mmengine's ``AmpOptimWrapper`` scales the loss and refuses CPUs.

    Args:
        dtype: 'bfloat16', the only one that needs no scaling of the loss, or ``torch.bfloat16``. Defaults to
            'bfloat16'.
        **options: Arguments of mmengine's ``OptimWrapper``: optimizer, accumulative_counts, clip_grad.

    Raises:
        ValueError: If ``dtype`` is another one.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> wrapper = AutocastOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
        >>> with wrapper.optim_context(model):
        ...     model(torch.ones(1, 2)).dtype
        torch.bfloat16
    """

    def __init__(self, dtype: str | torch.dtype = "bfloat16", **options: Any) -> None:
        if dtype not in ("bfloat16", torch.bfloat16):
            raise ValueError(
                f"dtype must be 'bfloat16', got {dtype!r}; use mmengine's AmpOptimWrapper on a GPU for float16, "
                "whose loss must be scaled"
            )
        super().__init__(**options)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run a forward pass under autocast, and without synchronisation while gradients are accumulated."""
        device = next((parameter.device.type for parameter in model.parameters()), "cpu")
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield
