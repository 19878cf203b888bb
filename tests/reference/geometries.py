"""Footprints to try an operator on: small maps, often smaller than the footprint, never only square."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from tests.sampling import exhaustive

# Derandomised, so that two runs test the same; without a deadline, because the first example compiles.
many_examples = settings(max_examples=120 if exhaustive() else 40, deadline=None, derandomize=True, database=None)

seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(1, 7), st.integers(1, 7))
batches = st.integers(1, 2)


def _int_or_pair(numbers: list[int]) -> st.SearchStrategy[int | tuple[int, int]]:
    one = st.sampled_from(numbers)
    return one | st.tuples(one, one)


options: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "kernel_size": _int_or_pair([1, 3, 5]),
        "stride": _int_or_pair([1, 2, 3]),
        "dilation": _int_or_pair([1, 2, 3]),
        "padding_mode": st.sampled_from(["reflect", "zeros"]),
    }
)


def option(
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    dilation: int | tuple[int, int] = 1,
    padding_mode: str = "reflect",
) -> dict[str, Any]:
    """Return one set of options, for an example that must always be tried."""
    return {"kernel_size": kernel_size, "stride": stride, "dilation": dilation, "padding_mode": padding_mode}
