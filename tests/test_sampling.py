"""Samples of parametrisations: reproducible, covering, and complete on request."""

from __future__ import annotations

from itertools import product

import pytest

from tests.sampling import VARIABLE, sample

CASES = list(product(("pairwise", "patchwise"), (3, 5, 7), (1, 2, 3, 4), (None, "zeros")))


@pytest.fixture(autouse=True)
def not_exhaustive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_a_sample_is_reproducible_and_in_order() -> None:
    chosen = sample(CASES, 10)
    assert chosen == sample(iter(CASES), 10)
    assert len(set(chosen)) == 10
    assert sorted(chosen, key=CASES.index) == chosen
    assert chosen != sample(CASES, 10, seed=1)


@pytest.mark.parametrize("seed", range(20))
def test_every_value_of_every_argument_is_in_the_sample(seed: int) -> None:
    for argument, values in enumerate(zip(*sample(CASES, 8, seed=seed), strict=True)):
        assert set(values) == {case[argument] for case in CASES}


def test_params_and_single_values() -> None:
    assert len(sample([pytest.param(value, id=str(value)) for value in range(9)], 4)) == 4
    assert len(sample(range(9), 4)) == 4
    assert sample(range(3), 4) == [0, 1, 2]


def test_exhaustive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    assert sample(CASES, 8) == CASES
