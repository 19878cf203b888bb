"""One problem of a seed: solved by the operators and by the oracle, and compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import attentions, footprints, linear, linear_training, training
from .case import Case
from .draw import Draw
from .oracle import Array, Estimate

OPERATORS = {
    function.__name__: function
    for function in (
        footprints.aggregation,
        footprints.softmax_aggregation,
        footprints.pairwise_relation,
        footprints.patchwise_relation,
        attentions.pairwise_attention,
        attentions.patchwise_attention,
        training.pairwise_training,
        training.patchwise_training,
        linear_training.linear_training,
        linear.projection,
        linear.affine_relu,
        linear.pooled_projection,
    )
}
OFTEN = (
    "aggregation",
    "softmax_aggregation",
    "pairwise_attention",
    "patchwise_attention",
    "pairwise_training",
    "patchwise_training",
    "projection",
)
# At most, in units of the arithmetic's epsilon times a number's scale; torch's products in half precision accumulate in
# float32 and round a few times between operators.
ROUNDINGS, HALF_ROUNDINGS = 32, 4


def solve(seed: int) -> tuple[str, list[str]]:
    """The operator that a seed chooses, and a sentence for each result that is wrong."""
    draw = Draw(seed)
    name = draw.one_of((*OPERATORS, *OFTEN))
    with np.errstate(all="ignore"):
        case = OPERATORS[name](draw)
    before = [tensor.clone() for tensor in tensors_of(case.operands)]
    threads = [int(number) for number in draw.random.permutation(3) + 1][:2]
    torch.set_num_threads(threads[0])
    found = case.call()
    wrong = compare(case, found, draw.dtype)
    if case.native:
        torch.set_num_threads(threads[1])
        again = case.call()
        differing = [item for item in found if not same(found[item], again[item])]
        wrong += [f"{item} differs between {threads[0]} and {threads[1]} threads" for item in differing]
    if not all(same(old, new) for old, new in zip(before, tensors_of(case.operands), strict=True)):
        wrong.append("an operand was changed")
    if wrong:
        wrong.append(f"operands: {describe(case.operands)}")
    return name, wrong


def compare(case: Case, found: dict[str, Tensor], dtype: torch.dtype) -> list[str]:
    """A sentence for each result that is further from the oracle's than rounding explains."""
    wrong = []
    for name, expected in case.expected.items():
        result = found[name]
        if tuple(result.shape) != expected.value.shape:
            wrong.append(f"{name} has the shape {tuple(result.shape)}, not {expected.value.shape}")
            continue
        numbers = result.detach().double().numpy()
        with np.errstate(all="ignore"):
            excess = excess_of(numbers, expected, case, result.dtype)
        if excess.size and excess.max() > 1:
            worst = np.unravel_index(int(excess.argmax()), excess.shape)
            wrong.append(
                f"{name}{[int(index) for index in worst]} is {numbers[worst]!r}, not {expected.value[worst]!r}: "
                f"{excess[worst]:.3g} times what rounding explains; {(excess > 1).mean():.2%} of its numbers are wrong"
            )
        if name == "output" and result.dtype != dtype:
            wrong.append(f"{name} is {result.dtype}, not {dtype}")
    return wrong


def excess_of(found: Array, expected: Estimate, case: Case, dtype: torch.dtype) -> Array:
    """Each error in units of what rounding explains; infinite for a NaN or an inf where there must be none."""
    arithmetic, stored = torch.finfo(case.arithmetic), torch.finfo(dtype)
    rounding = (HALF_ROUNDINGS if arithmetic.bits == 16 else ROUNDINGS) * arithmetic.eps * expected.scale
    smallest = stored.smallest_normal if dtype != torch.float16 else stored.smallest_normal * stored.eps
    allowed = rounding + stored.eps * np.abs(expected.value) + smallest + arithmetic.smallest_normal
    excess = np.abs(found - expected.value) / allowed
    # equal infinities, and NaN or inf where the oracle has either
    unbounded = ~np.isfinite(expected.value)
    excess = np.where(unbounded, np.where(np.isfinite(found), np.inf, 0), excess)
    overflows = case.may_overflow & (expected.scale + np.abs(expected.value) > min(arithmetic.max, stored.max) / 2)
    excess = np.where(overflows & ~unbounded, 0, excess)
    return np.where(np.isnan(excess), np.inf, excess)


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal, NaN included."""
    return one.shape == other.shape and torch.equal(one.nan_to_num(0.5), other.nan_to_num(0.5))


def tensors_of(item: Any) -> list[Tensor]:
    """All tensors in nested containers."""
    if isinstance(item, Tensor):
        return [item]
    parts = item.values() if isinstance(item, dict) else item if isinstance(item, list | tuple) else ()
    return [tensor for part in parts for tensor in tensors_of(part)]


def describe(item: Any) -> str:
    """Operands, with shapes and strides in place of numbers."""
    if isinstance(item, Tensor):
        return f"{str(item.dtype).removeprefix('torch.')}{list(item.shape)} of strides {list(item.stride())}"
    if isinstance(item, dict):
        return ", ".join(f"{name}={describe(part)}" for name, part in item.items())
    if isinstance(item, list | tuple):
        return f"({', '.join(map(describe, item))})"
    return repr(item)
