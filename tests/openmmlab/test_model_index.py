"""The model index: parameters and multiply-adds, and registration in mmpretrain's hub."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("mmpretrain")

import mmpretrain
from mmengine.config import Config
from modelindex.load_model_index import load

import sa_layers
from sa_layers.backbones import SAN, register_models
from sa_layers.complexity import count

from .models import build

pytestmark = pytest.mark.openmmlab

FOLDER = Path(sa_layers.__file__).parent / ".mim"
INDEX = load(str(FOLDER / "model-index.yml"))
MODELS = {model.name: model for model in INDEX.models if not model.name.endswith("imagenette-64px")}
ON_IMAGENETTE = {model.name: model for model in INDEX.models if model.name not in MODELS}  # empty without runs


def test_index() -> None:
    """All classifiers of the paper are in one collection, without links to weights, and ours in another."""
    networks = [f"san{depth}-{attention}" for depth in (10, 15, 19) for attention in ("pairwise", "patchwise")]
    networks += [f"resnet{depth}" for depth in (26, 38, 50)]
    assert set(MODELS) == {f"{network}_8xb32-coslr-100e_in1k" for network in networks}
    assert [collection.name for collection in INDEX.collections] == ["SelfAttentionNetwork", "Imagenette"]
    for name, model in MODELS.items():
        assert (FOLDER / model.config).is_file()
        assert Path(model.config).stem == name
        assert model.weights is None
        assert all(metric.endswith("(the paper's)") for result in model.results for metric in result.metrics)


@pytest.mark.parametrize("name", MODELS)
def test_figures(name: str) -> None:
    """Parameters and multiply-adds are those of the network."""
    complexity = count(build(Config.fromfile(FOLDER / MODELS[name].config)))
    assert MODELS[name].metadata.parameters == complexity.parameters
    assert MODELS[name].metadata.flops == complexity.multiply_adds


@pytest.mark.parametrize("name", ON_IMAGENETTE)
def test_figures_at_64_pixels(name: str) -> None:
    model = ON_IMAGENETTE[name]
    complexity = count(build(Config.fromfile(FOLDER / model.config)), (64, 64))
    assert model.metadata.parameters == complexity.parameters
    assert model.metadata.flops == complexity.multiply_adds
    assert model.weights is None


def test_hub() -> None:
    """mmpretrain lists and builds the models, and a second registration has no effect."""
    names = register_models()
    known = len(mmpretrain.list_models())
    assert register_models() == names
    assert len(mmpretrain.list_models()) == known
    assert sorted(names) == sorted([*MODELS, *ON_IMAGENETTE])
    assert mmpretrain.list_models("san") == sorted(name for name in names if name.startswith("san"))
    assert set(names) <= set(mmpretrain.list_models(task="Image Classification"))
    model = mmpretrain.get_model("san10-patchwise_8xb32-coslr-100e_in1k", backbone={"out_indices": (3, 4)})
    assert isinstance(model.backbone, SAN)
    assert model.backbone.out_indices == (3, 4)
