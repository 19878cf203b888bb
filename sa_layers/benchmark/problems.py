"""The problems that are timed: each operator at the five stages of SAN19, and its implementations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .. import ops
from ..ops import Footprint, backend
from ..ops.backend import why_not
from . import baselines, one_thread_per_output

Operator = Callable[[Tensor, Tensor, Footprint], Tensor]
OURS = "sa_layers"
REFERENCE = "Numba reference"


class Stage(NamedTuple):
    """Sizes of the attention in one stage."""

    side: int
    value_channels: int
    weight_channels: int
    relation_channels: int
    kernel_size: int


STAGES = (
    Stage(112, 16, 2, 4, 3),
    Stage(56, 64, 8, 16, 7),
    Stage(28, 128, 16, 32, 7),
    Stage(14, 256, 32, 64, 7),
    Stage(7, 512, 64, 128, 7),
)


class Problem(NamedTuple):
    """One operator at one shape."""

    operator: str
    shape: str
    operands: tuple[Tensor, Tensor]
    footprint: Footprint
    candidates: dict[str, Operator]
    """Implementations by name, ours first."""
    flops: int
    """FLOPs of the forward pass. The backward pass needs twice as many."""
    backward_reads_operands: bool
    """Whether the backward pass reads the operands."""
    unfolded_bytes: int
    """Memory of the unfolded neighbours."""


def aggregation(stage: Stage, batch: int, dtype: torch.dtype, device: torch.device) -> Problem:
    """Make a problem for aggregation, with normalised weights."""
    return _aggregation("aggregation", stage, batch, dtype, device)


def softmax_aggregation(stage: Stage, batch: int, dtype: torch.dtype, device: torch.device) -> Problem:
    """Make a problem for softmax_aggregation. The baselines apply torch's softmax to the logits first."""
    return _aggregation("softmax_aggregation", stage, batch, dtype, device)


def pairwise_relation(stage: Stage, batch: int, dtype: torch.dtype, device: torch.device) -> Problem:
    """Make a problem for pairwise_relation with subtraction, the relation of SAN."""
    footprint = Footprint.parse(stage.kernel_size)
    shape = (batch, stage.relation_channels, stage.side, stage.side)
    pairs = footprint.taps * batch * stage.relation_channels * stage.side**2
    others: dict[str, Operator] = {
        "unfold, subtract": baselines.unfold_subtract,
        "shift loop": baselines.shift_subtract,
    }
    return Problem(
        "pairwise_relation, subtraction",
        f"{_format_shape(shape)}, kernel {stage.kernel_size}",
        (_normal(shape, 0).to(device, dtype), _normal(shape, 1).to(device, dtype)),
        footprint,
        _ours("pairwise_relation") | others | _reference("pairwise_relation", batch, device),
        flops=pairs,
        backward_reads_operands=False,
        unfolded_bytes=pairs * dtype.itemsize,
    )


PROBLEMS: dict[str, Callable[[Stage, int, torch.dtype, torch.device], Problem]] = {
    "aggregation": aggregation,
    "softmax_aggregation": softmax_aggregation,
    "pairwise_relation": pairwise_relation,
}


def _aggregation(name: str, stage: Stage, batch: int, dtype: torch.dtype, device: torch.device) -> Problem:
    footprint, takes_logits = Footprint.parse(stage.kernel_size), name == "softmax_aggregation"
    shape = (batch, stage.value_channels, stage.side, stage.side)
    logits = _normal((batch, stage.weight_channels, footprint.taps, stage.side**2), 1)
    others: dict[str, Operator] = {
        "unfold, multiply, sum": baselines.unfold_multiply_sum,
        "unfold, einsum": baselines.unfold_einsum,
        "shift loop, addcmul_": baselines.shift_loop,
    }
    if device.type == "cuda" and one_thread_per_output.why_not(dtype) is None:
        others["one thread per output"] = one_thread_per_output.aggregation
    if takes_logits:
        others = {label: partial(_after_softmax, operator) for label, operator in others.items()}
    pairs = footprint.taps * batch * stage.value_channels * stage.side**2
    return Problem(
        name,
        f"{_format_shape(shape)}, {stage.weight_channels} weight channels, kernel {stage.kernel_size}",
        (_normal(shape, 0).to(device, dtype), (logits if takes_logits else logits.softmax(2)).to(device, dtype)),
        footprint,
        _ours(name) | others | _reference(name, batch, device),
        flops=2 * pairs,
        backward_reads_operands=True,
        unfolded_bytes=pairs * dtype.itemsize,
    )


def _after_softmax(operator: Operator, value: Tensor, logits: Tensor, footprint: Footprint) -> Tensor:
    return operator(value, logits.softmax(2), footprint)


def _ours(name: str) -> dict[str, Operator]:
    operator = getattr(ops, name)
    return {OURS: lambda first, second, footprint: operator(first, second, footprint.kernel_size)}


def _reference(name: str, batch: int, device: torch.device) -> dict[str, Operator]:
    """Return the reference implementation, for one image only because it is slow and single-threaded."""
    operator = _ours(name)[OURS]

    def call(first: Tensor, second: Tensor, footprint: Footprint) -> Tensor:
        with backend("reference"):
            return operator(first, second, footprint)

    return {} if batch > 1 or why_not("reference", device) else {REFERENCE: call}


def _normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _format_shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
