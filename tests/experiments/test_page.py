"""The page is that of the ledger, and reads well whatever the ledger holds."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from experiments.__main__ import LEDGER, PAGE
from experiments.attention import ATTENTION, MEASURES
from experiments.autoattack import AUTOATTACK
from experiments.errors import LedgerError
from experiments.intervals import interval, paired
from experiments.ledger import Ledger
from experiments.measures import Results, accuracy, all_right, attack_success, attacked_accuracy, rotation_drop
from experiments.page import FIGURES, SECTIONS, make_page, write
from experiments.plan import SEARCH, list_runs, resolve
from experiments.plots import is_current
from experiments.recipes import SUITES
from experiments.tasks import NETWORKS as TASK_NETWORKS
from experiments.tasks import TASKS
from experiments.timing import BATCHES

from .test_task_page import invent_task

MACHINE = {"device": "abacus", "threads": 1, "torch": "2.0"}


def invent(suite: str, seeds: int | None = None, networks: list[str] | None = None) -> list[dict[str, Any]]:
    """Records as runs would have written them: of attacked images, the share of targets grows with the bound."""
    generator, records = random.Random(0), []
    for run in list_runs(SUITES[suite], ablations=True, seeds=seeds, networks=networks):
        resolved = resolve(run, records, "data")
        assert resolved is not None
        correct = {str(degrees): 2700 - 10 * degrees + generator.randrange(100) for degrees in (0, 90, 180, 270)}
        results: dict[str, Any] = {"losses": [1.0], "images": 3925, "correct": correct}
        if run.purpose == SEARCH:
            results["correct"] = {"0": 1000 + generator.randrange(100)}
        else:
            settings = [
                {
                    "epsilon": epsilon,
                    "steps": steps,
                    "predictions": "".join(generator.choices("01", (16, epsilon), k=9)) + "1",
                    "other_predictions": 0,
                }
                for epsilon in run.recipe.epsilons
                for steps in run.recipe.attack_steps
            ]
            attack = {"labels": 10 * "0", "targets": 10 * "1", "clean": 9 * "0" + "1", "settings": settings}
            results |= {"parameters": 10**7, "multiply_adds": 2 * 10**8, "attack": attack, "weights": run.key("data")}
        measured = {"training_s": 1.0, "test_s": 1.0, "finished": "2026-01-01"} | MACHINE
        records.append(resolved.definition("data") | {"results": results, "measured": measured})
    return records


def invent_of_weights(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines on the weights of runs: APGD and Square change two and one of ten images within 8/255."""
    records = []
    for run in runs:
        if run["purpose"] == "result":
            origin = {"network": run["network"], "seed": run["seed"], "weights": run["results"]["weights"]}
            attacks = [
                {"attack": attack, "epsilon": epsilon, "predictions": changed * "1" + (10 - changed) * "0"}
                for epsilon, apgd in ((2, 0), (8, 2))
                for attack, changed in (("apgd", apgd), ("square", 1))
            ]
            results: dict[str, Any] = {"labels": 10 * "0", "clean": 10 * "0", "attacks": attacks}
            settings = {"epsilons": [2, 8], "apgd_steps": 50, "apgd_targets": 3, "square_queries": 1000}
            records.append({"purpose": AUTOATTACK, **origin, "settings": settings, "results": results})
            rows = [{"stage": f"stages.{index}"} | dict.fromkeys(MEASURES, 0.5) for index in range(5)]
            if not run["network"].startswith("resnet"):
                looked_at = {"images": 100, "before": rows, "after": rows}
                records.append({"purpose": ATTENTION, **origin, "results": looked_at})
    return records


def invent_times(networks: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "purpose": "time",
            "network": name,
            "batch": batch,
            "image_size": 64,
            "measured": {"ms_per_image": 5.0, **MACHINE},
        }
        for name in networks
        for batch in BATCHES
    ]


def test_page_is_that_of_the_ledger() -> None:
    page = make_page(Ledger(LEDGER).read())
    remedy = "is not that of the ledger: run python -m experiments page"
    assert PAGE.read_text() == page.text, f"{PAGE} {remedy}"
    for name, panels in page.figures.items():
        assert is_current(PAGE.parent / FIGURES / name, panels), f"{name} {remedy}"


def test_empty_ledger() -> None:
    page = make_page([])
    assert page.figures == {}
    assert page.text.count("**Not run yet**") == len(SECTIONS)
    assert "nan" not in page.text


@pytest.mark.parametrize(("finished", "left"), [(1, 0), (9, 0), (10, 3), (15, 3), (17, 1), (18, 0)])
def test_partial_ledger(finished: int, left: int) -> None:
    """After every run the page can be made, and names those that are left."""
    networks = ["resnet26", "san10-pairwise", "san10-patchwise"]
    page = make_page(invent("two-core", networks=networks)[:finished])
    assert page.text.count(", seed 2") == left
    assert ("**Not run yet**: all of it" in page.text.partition("## A GPU")[0]) == (finished < 10)
    assert_tables_are_regular(page.text)


def assert_tables_are_regular(text: str) -> None:
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_full_ledger(tmp_path: Path) -> None:
    records = invent("two-core") + invent("gpu")
    networks = list(dict.fromkeys(record["network"] for record in records))
    tasks = [
        invent_task(purpose, network, 0, 40.0) | weights
        for purpose in TASKS
        for network in TASK_NETWORKS
        for weights in ({}, {"weights": "abc"})
    ]
    page = make_page(records + invent_times(networks) + tasks + invent_of_weights(records))
    assert "not run yet" not in page.text.lower()
    assert_tables_are_regular(page.text)
    assert len(page.figures) == 6
    assert re.search(
        r"^\| SAN10 pairwise \| 8/255 \| 3 \| 100\.0 \| [\d.]+ \| 80\.0 \| 90\.0 \|$", page.text, re.MULTILINE
    )
    assert "Square succeeds where APGD fails on 9 of 180 attacked images." in page.text
    assert page.text.count("| SAN10 patchwise, stages.4 | 0.500 |") == 2
    page = make_page(invent("two-core"))
    (tmp_path / FIGURES).mkdir()
    write(page, tmp_path / "evidence.md")
    assert (tmp_path / "evidence.md").read_text() == page.text
    assert sorted(path.name for path in (tmp_path / FIGURES).iterdir()) == sorted(page.figures)
    for name, panels in page.figures.items():
        assert is_current(tmp_path / FIGURES / name, panels)
        assert f"]({FIGURES}/{name})" in page.text
    other = make_page(invent("two-core", seeds=2))
    name = "evidence_two-core_accuracy.png"
    assert not is_current(tmp_path / FIGURES / name, other.figures[name])


def test_what_does_not_hold_is_said() -> None:
    records = invent("two-core")
    for record in records:
        if record["network"] == "san10-patchwise" and record["purpose"] == "result":
            record["results"]["correct"]["0"] = 2000 + record["seed"]
    claims = re.findall(r"^\| SAN10 patchwise minus ResNet-26 .*", make_page(records).text, re.MULTILINE)
    assert "**does not hold**" in claims[0]


def test_different_images_are_not_mixed() -> None:
    records = invent("two-core")
    records[3]["data"] = "other"
    with pytest.raises(LedgerError, match="the runs of recipe two-core differ in 'data'"):
        make_page(records)


def test_measures() -> None:
    record = invent("two-core", seeds=1, networks=["resnet26"])[-1]
    record["results"] |= {"images": 200, "correct": {"0": 100, "90": 40, "180": 60, "270": 50}}
    record["results"]["attack"] = {
        "labels": "0123",
        "targets": "1111",
        "clean": "0120",
        "settings": [{"epsilon": 8, "steps": 2, "predictions": "1121", "other_predictions": 0}],
    }
    assert accuracy(record) == 50
    assert rotation_drop(record) == 25
    assert all_right([record]) == {0, 1, 2}
    assert attack_success(record, 8, 2) == 75
    assert attack_success(record, 8, 2, frozenset({0, 2})) == 50
    assert attacked_accuracy(record, 8, 2) == 50
    assert Results([record], "two-core").of("resnet26", accuracy) == {0: 50}


def test_intervals() -> None:
    """Student's t of three values with standard deviation 1: 4.303 / sqrt(3)."""
    assert interval([1.0, 2.0, 3.0]).half_width == pytest.approx(4.30265 / 3**0.5, rel=1e-5)
    assert interval([1.0]).half_width is None
    assert paired({0: 1.0}, {1: 1.0}) is None
    difference = paired({0: 10.0, 1: 20.0}, {0: 9.0, 1: 17.0})
    assert difference is not None
    assert difference.mean == 2
    assert difference.half_width == pytest.approx(12.7062, rel=1e-5)
