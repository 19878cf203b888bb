"""Means of runs with different seeds, and paired differences of runs with the same seeds, with t-intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy.stats import t as student

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean, and half the width of its 95 % interval: None for a single value, which has none."""

    mean: float
    half_width: float | None
    seeds: int

    @property
    def low(self) -> float:
        """The lower end; minus infinity for a single value."""
        return -math.inf if self.half_width is None else self.mean - self.half_width

    @property
    def high(self) -> float:
        """The upper end; infinity for a single value."""
        return math.inf if self.half_width is None else self.mean + self.half_width


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of independent values with Student's 95 % interval.

    Example:
        >>> interval([1.0, 2.0, 3.0])  # doctest: +ELLIPSIS
        Interval(mean=2.0, half_width=2.484..., seeds=3)
    """
    count = len(values)
    if count == 1:
        return Interval(values[0], None, 1)
    error = statistics.stdev(values) / math.sqrt(count)
    return Interval(statistics.fmean(values), float(student.ppf((1 + CONFIDENCE) / 2, count - 1)) * error, count)


def paired(values: Mapping[int, float], others: Mapping[int, float]) -> Interval | None:
    """Return the mean difference ``values - others`` over the seeds that both have, or None if there are none.

    Example:
        >>> paired({0: 3.0, 1: 5.0}, {0: 1.0, 1: 3.0, 2: 7.0})
        Interval(mean=2.0, half_width=0.0, seeds=2)
    """
    seeds = sorted(values.keys() & others.keys())
    return interval([values[seed] - others[seed] for seed in seeds]) if seeds else None
