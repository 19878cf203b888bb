"""Samples of parametrisations: some of the cases by default, all of them with ``pytest --exhaustive``."""

from __future__ import annotations

import os
import random
from collections.abc import Hashable, Iterable, Sequence
from itertools import combinations
from typing import Any, TypeVar

Case = TypeVar("Case")
VARIABLE = "SA_LAYERS_EXHAUSTIVE"  # set by --exhaustive before collection, inherited by pytest-xdist's workers


def exhaustive() -> bool:
    """Whether every case was asked for."""
    return bool(os.environ.get(VARIABLE))


def sample(cases: Iterable[Case], count: int, seed: int = 0) -> list[Case]:
    """Choose ``count`` of the cases, the same ones in every run, in their original order.

    Cases that are tuples are the arguments of a test, as in ``itertools.product``. Those that bring a value of an
    argument which no chosen case has are preferred, so that a sample that is large enough has every value of every
    argument. Under ``--exhaustive`` all cases are returned.

    Example:
        >>> from itertools import product
        >>> @pytest.mark.parametrize(("kernel_size", "stride"), sample(product((3, 5, 7), (1, 2)), 4))
        ... def test_aggregation(kernel_size, stride): ...
    """
    everything = list(cases)
    if exhaustive() or count >= len(everything):
        return everything
    order = random.Random(seed).sample(range(len(everything)), len(everything))
    chosen: list[int] = []
    seen: set[tuple[int, str]] = set()
    for index in order:
        new = _arguments(everything[index]) - seen
        if new and len(chosen) < count:
            chosen.append(index)
            seen |= new
    chosen += [index for index in order if index not in chosen][: count - len(chosen)]
    return [everything[index] for index in sorted(chosen)]


def cover_pairs(cases: Sequence[Sequence[Hashable]]) -> list[int]:
    """Choose cases that together have every value of each argument with every value of each other argument.

    Most mistakes need no more than two values to show. Of cases with one or two arguments none is left out.

    Args:
        cases: The values of the arguments, as many in each case.

    Returns:
        The indices of the chosen cases, the same ones in every run, in increasing order.
    """
    pairs = [set(combinations(enumerate(case), min(2, len(case)))) for case in cases]
    missing = set[Any]().union(*pairs)
    order = random.Random(0).sample(range(len(cases)), len(cases))
    chosen = []
    while missing:
        chosen.append(max(order, key=lambda index: len(pairs[index] & missing)))
        missing -= pairs[chosen[-1]]
    return sorted(chosen)


def _arguments(case: Any) -> set[tuple[int, str]]:
    """Each argument of a case with its position; ``pytest.param`` objects have theirs in ``values``."""
    values = getattr(case, "values", case)
    if not isinstance(values, tuple | list):
        values = (values,)
    return {(position, repr(value)) for position, value in enumerate(values)}
