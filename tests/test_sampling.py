"""Samples of parametrisations: reproducible, covering, and complete on request."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from tests.sampling import VARIABLE, cover_pairs, sample

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


def test_every_pair_of_values_is_covered() -> None:
    chosen = cover_pairs(CASES)
    assert chosen == sorted(set(cover_pairs(CASES)))
    assert 12 <= len(chosen) <= 15
    for one, other in combinations(range(4), 2):
        found = {(CASES[index][one], CASES[index][other]) for index in chosen}
        assert found == {(case[one], case[other]) for case in CASES}


def test_one_or_two_arguments_are_complete() -> None:
    assert cover_pairs(list(product("abcd", range(3)))) == list(range(12))
    assert cover_pairs([(number,) for number in range(9)]) == list(range(9))
    assert cover_pairs([()]) == [0]


def test_exhaustive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    assert sample(CASES, 8) == CASES
