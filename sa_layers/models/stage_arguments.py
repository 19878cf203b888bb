"""The arguments of a network that concern its stages, checked and as tuples of Python's integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..ops.footprint import IntOrPair, pair
from ..ops.integers import integer, integers, is_integer

STAGES = 5


def resolve_stages(out_indices: int | Sequence[int], num_stages: int | None) -> tuple[tuple[int, ...], int]:
    """Return the stages whose features are returned, counted from 0, and the number of stages.

    Args:
        out_indices: A stage or stages, ascending; negative numbers count from the end.
        num_stages: The number of stages, or None for those up to the last of ``out_indices``.

    Raises:
        TypeError: ``num_stages`` is not an integer.
        ValueError: A stage does not exist, the stages are not ascending, or ``num_stages`` is not from 1 to 5.

    Example:
        >>> resolve_stages((1, 3), None), resolve_stages(-1, None), resolve_stages((1, -1), 3)
        (((1, 3), 4), ((4,), 5), ((1, 2), 3))
    """
    stages = STAGES if num_stages is None else integer(num_stages, "num_stages")
    if not 1 <= stages <= STAGES:
        raise ValueError(f"num_stages must be from 1 to {STAGES}, got {num_stages!r}")
    indices = (integer(out_indices, "out_indices"),) if is_integer(out_indices) else integers(out_indices) or ()
    positive = tuple(index + stages if index < 0 else index for index in indices)
    if not indices or not all(0 <= index < stages for index in positive) or list(positive) != sorted(set(positive)):
        raise ValueError(
            f"out_indices must be ascending stages from 0 to {stages - 1} (or -{stages} to -1), got {out_indices!r}"
        )
    return positive, positive[-1] + 1 if num_stages is None else stages


def values_of_stages(name: str, values: Any, stages: int) -> tuple[Any, ...]:
    """Return the values of the first ``stages`` stages of an argument that has one for each.

    Raises:
        ValueError: ``values`` has neither a value for each of the five stages nor for each of ``stages``.

    Example:
        >>> values_of_stages("strides", [2, 2, 2, 1, 1], 4)
        (2, 2, 2, 1)
    """
    is_sequence = hasattr(values, "__len__") and not isinstance(values, str) and not is_integer(values)
    items = tuple(values) if is_sequence else ()
    if len(items) not in (stages, STAGES):
        each = f"each of the {STAGES} stages" + f", or of the first {stages}" * (stages != STAGES)
        raise ValueError(f"{name} must have a value for {each}, got {values!r}")
    return tuple(integer(item, name) if is_integer(item) else item for item in items[:stages])


def blocks_of_stages(depth: Any, known: Mapping[int, tuple[int, ...]], stages: int) -> tuple[int, ...]:
    """Return the number of blocks of the first ``stages`` stages.

    Args:
        depth: A name in ``known``, or the numbers of blocks.
        known: The blocks of the five stages, by depth.
        stages: The number of stages.

    Raises:
        ValueError: ``depth`` is neither.
    """
    blocks = known.get(integer(depth, "depth")) if is_integer(depth) else integers(depth)
    if blocks is None or len(blocks) not in (stages, STAGES) or min(blocks) < 1:
        depths = ", ".join(map(str, known))
        raise ValueError(
            f"depth must be one of {depths}, or the positive numbers of blocks of {STAGES} stages, got {depth!r}"
        )
    return blocks[:stages]


def sides_of_position_image(size: IntOrPair | None, stride: int) -> tuple[int, int] | None:
    """Return (height, width) of the images of pre-training, or None.

    Raises:
        ValueError: Less than two pixels of the last stage.
    """
    sides = None if size is None else pair(size, "position_image_size")
    if sides is not None and min(sides) < 2 * stride:
        raise ValueError(f"position_image_size must be at least {2 * stride}, twice the stride, got {size!r}")
    return sides
