"""The metafile is that of the ledger, and its configs build the networks whose weights the runs save."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.__main__ import LEDGER, METAFILE
from experiments.ledger import Ledger
from experiments.metafile import CONFIGS, make_metafile
from experiments.networks import make_network
from tests.conftest import REPOSITORY

from .test_page import invent

NETWORKS = ["resnet26", "san10-pairwise", "san10-patchwise"]


def test_metafile_is_that_of_the_ledger() -> None:
    remedy = f"{METAFILE} is not that of the ledger: run python -m experiments page"
    assert METAFILE.read_text() == make_metafile(Ledger(LEDGER).read()), remedy


def test_models(tmp_path: Path) -> None:
    """One for each network, its most accurate run."""
    load = pytest.importorskip("modelindex.load_model_index").load
    records = invent("two-core", seeds=2, networks=NETWORKS)
    (best,) = (each for each in records if (each["network"], each["seed"]) == ("san10-pairwise", 1))
    best["results"]["correct"]["0"] = 3000
    (tmp_path / "metafile.yml").write_text(make_metafile(records))
    (tmp_path / "model-index.yml").write_text("Import:\n  - metafile.yml\n")
    models = {model.name: model for model in load(str(tmp_path / "model-index.yml")).models}
    assert sorted(models) == [f"{network}_1xb16-15e_imagenette-64px" for network in NETWORKS]
    model = models["san10-pairwise_1xb16-15e_imagenette-64px"]
    assert model.results[0].metrics == {"Top 1 Accuracy": 76.43}
    assert model.metadata.data["Training Command"].endswith("--suite two-core --networks san10-pairwise --seeds 2")
    assert model.metadata.data["SHA-256"] == best["results"]["weights"]


@pytest.mark.openmmlab
@pytest.mark.parametrize("network", ["resnet26", "san10-patchwise"])
def test_config_takes_the_weights(network: str, tmp_path: Path) -> None:
    """As init_cfg of the backbone, which is how other models start from them, without a prefix."""
    pytest.importorskip("mmpretrain")
    from mmengine.config import Config
    from mmengine.registry import MODELS, DefaultScope

    path = tmp_path / "weights.pth"
    trained = make_network(network, 10, seed=3).eval()
    torch.save(trained.state_dict(), path)
    config = Config.fromfile(REPOSITORY / CONFIGS["two-core"].format(network).replace("configs/", "mm_configs/", 1))
    config.model.backbone.init_cfg = {"type": "Pretrained", "checkpoint": str(path)}
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        model = MODELS.build(config.model)
        model.backbone.init_weights()
    head = trained.get_submodule("fc" if network == "resnet26" else "head")
    images = torch.rand(1, 3, 64, 64)
    model.eval()
    with torch.no_grad():
        (features,) = model.backbone(images)
        torch.testing.assert_close(head(features.mean((2, 3))), trained(images), rtol=1e-4, atol=1e-5)
