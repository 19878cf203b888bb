"""The order of the runs, the choice of the learning rate, and the ledger."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.errors import LedgerError
from experiments.expectations import ABLATIONS
from experiments.ledger import Ledger
from experiments.networks import NETWORKS, make_network
from experiments.plan import RESULT, SEARCH, Run, list_runs, resolve, unfinished
from experiments.recipes import QUICK, SUITES, TWO_CORES
from tests.sampling import sample


def record(run: Run, correct: int = 5) -> dict[str, Any]:
    return run.definition("data") | {"results": {"correct": {"0": correct}, "images": 10}}


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_order(suite: Any) -> None:
    """Every run is planned once, after those that choose its learning rate, which few runs precede."""
    runs = list_runs(suite, ablations=True)
    assert len(runs) == len(set(runs))
    for index, run in enumerate(runs):
        if run.purpose == RESULT:
            searches = [
                other
                for other in runs[:index]
                if (other.purpose, other.network, other.recipe) == (SEARCH, NETWORKS[run.network].base, run.recipe)
            ]
            assert [search.learning_rate for search in searches] == list(run.recipe.learning_rates)


def test_two_core_suite() -> None:
    runs = list_runs(SUITES["two-core"])
    assert [run.purpose for run in runs] == 9 * [SEARCH] + 9 * [RESULT]
    assert [run.seed for run in runs[9:]] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len(list_runs(SUITES["two-core"], seeds=1)) == 12
    assert len(list_runs(SUITES["two-core"], networks=["san10-pairwise"])) == 6
    assert all(name in NETWORKS for ranks in ABLATIONS.values() for rank in ranks for name in rank)


@pytest.mark.parametrize("name", sample(sorted(NETWORKS), 4))
def test_networks_can_be_made(name: str) -> None:
    assert sum(parameter.numel() for parameter in make_network(name, 10, seed=0).parameters()) > 5e6


def test_learning_rate() -> None:
    run = Run(TWO_CORES, "san10-pairwise-dot", 1, RESULT)
    searches = [Run(TWO_CORES, "san10-pairwise", 0, SEARCH, rate) for rate in TWO_CORES.learning_rates]
    records = [record(search, correct) for search, correct in zip(searches, (5, 7, 7), strict=True)]
    assert resolve(run, records[:2], "data") is None
    assert resolve(run, records, "other data") is None
    assert resolve(run, records, "data") == replace(run, learning_rate=TWO_CORES.learning_rates[1])


def test_unfinished() -> None:
    runs = list_runs(SUITES["quick"], networks=["resnet26"])
    searches, result = runs[:-1], runs[-1]
    assert list(unfinished(runs, [], "data")) == runs
    records = [record(search) for search in searches]
    (left,) = unfinished(runs, records, "data")
    assert left == replace(result, learning_rate=QUICK.learning_rates[0])
    assert list(unfinished(runs, [*records, record(left)], "data")) == []
    assert len({run.key("data") for run in [*runs, left]}) == len(runs) + 1


def test_ledger(tmp_path: Path) -> None:
    """Many writers at once, and a reader."""
    ledger = Ledger(tmp_path / "results" / "runs.jsonl")
    assert ledger.read() == []
    writers = [threading.Thread(target=ledger.append, args=({"number": number},)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(line["number"] for line in ledger.read()) == list(range(8))
    assert len(ledger.path.read_text().splitlines()) == 8


@pytest.mark.parametrize("line", ["", "{", "[1]", "nothing"])
def test_damaged_ledger(tmp_path: Path, line: str) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text(f"{json.dumps({'number': 1})}\n{line}\n")
    with pytest.raises(LedgerError, match=r"line 2 of .*runs\.jsonl is not a JSON object"):
        Ledger(path).read()
