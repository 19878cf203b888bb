"""A run that is interrupted after any part gives the same results, bit for bit, and its weights load."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.imagenette import ImageFolder
from experiments.networks import NETWORKS, Network, make_network
from experiments.plan import RESULT, SEARCH, Run, find
from experiments.recipes import QUICK
from experiments.run import RunInProgress
from experiments.views import Views
from sa_layers.checkpoints import load_checkpoint

CPU = torch.device("cpu")
OPTIONS = {"depth": (1,) * 5, "widths": (32, 32, 64, 64, 64), "kernel_sizes": (3,) * 5}
RECIPE = replace(QUICK, image_size=32, images_per_class=3, epochs=2)


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    for attention in ("pairwise", "patchwise"):
        network = Network(f"Small {attention}", {"attention": attention, **OPTIONS}, attention)
        monkeypatch.setitem(NETWORKS, attention, network)


@pytest.fixture
def views(images: ImageFolder) -> Views:
    return Views(images, CPU)


def do(run: Run, views: Views, folder: Path, parts_each_time: int | None = None) -> dict[str, Any]:
    """Do a run; after some parts each time, everything but the files is forgotten."""
    while True:
        progress = RunInProgress(run, views, folder, CPU)
        for done, part in enumerate(progress.parts()):
            if done == parts_each_time:
                break
            part.do()
        else:
            return progress.record()


@pytest.mark.parametrize(("network", "parts"), [("pairwise", 1), ("patchwise", 3)])
def test_interrupted(network: str, parts: int, views: Views, tmp_path: Path) -> None:
    run = Run(RECIPE, network, 1, RESULT, 0.03)
    record = do(run, views, tmp_path / "whole")
    interrupted = do(run, views, tmp_path / "parts", parts_each_time=parts)
    assert interrupted["results"] == record["results"]
    assert len(set(record["results"]["losses"])) == 2
    assert do(replace(run, seed=2), views, tmp_path / "whole")["results"]["losses"] != record["results"]["losses"]


def test_record(views: Views, tmp_path: Path) -> None:
    run = Run(RECIPE, "patchwise", 0, RESULT, 0.03)
    record = do(run, views, tmp_path)
    assert find(run, [record], views.fingerprint) is record
    assert find(replace(run, seed=1), [record], views.fingerprint) is None
    assert find(run, [record], "other images") is None
    results = record["results"]
    assert results["images"] == 20
    assert list(results["correct"]) == ["0", "90", "180", "270"]
    assert [(row["epsilon"], row["steps"]) for row in results["attack"]["settings"]] == [(8, 1), (8, 2)]
    assert results["attack"]["labels"] == "0123456789"
    (weights,) = (tmp_path / "weights").glob("*.pth")
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == results["weights"]
    assert weights.stem.endswith(f"-{results['weights'][:8]}")
    load_checkpoint(loaded := make_network("patchwise", 10, seed=5), weights)
    trained = RunInProgress(run, views, tmp_path, CPU).network.get_submodule("network")
    for (name, values), (_, expected) in zip(loaded.state_dict().items(), trained.state_dict().items(), strict=True):
        assert torch.equal(values, expected), name


def test_search(views: Views, tmp_path: Path) -> None:
    """The choice of a learning rate sees no validation image, and is tested on images that it was not trained on."""
    run = Run(RECIPE, "pairwise", 0, SEARCH, 0.03)
    trained, tested = views.training(run), views.tested(SEARCH, replace(RECIPE, image_size=96))
    assert (len(trained), len(tested)) == (30, 10)
    results = do(run, views, tmp_path)["results"]
    assert results.keys() == {"losses", "images", "correct"}
    assert list(results["correct"]) == ["0"]
    whole = replace(run, recipe=replace(RECIPE, images_per_class=None))
    assert len(views.training(whole)) == 50
    assert len(views.training(replace(whole, purpose=RESULT))) == 60


def test_not_finite(views: Views, tmp_path: Path) -> None:
    """A training that diverges ends, and its line says so."""
    record = do(Run(RECIPE, "patchwise", 0, SEARCH, 1e30), views, tmp_path)
    assert record["results"]["losses"] == [None]


def test_damaged_checkpoint(views: Views, tmp_path: Path) -> None:
    run = Run(RECIPE, "pairwise", 0, SEARCH, 0.03)
    expected = do(run, views, tmp_path)["results"]
    (checkpoint,) = tmp_path.rglob("training.pt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert do(run, views, tmp_path)["results"] == expected
