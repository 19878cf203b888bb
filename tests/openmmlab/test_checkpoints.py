"""Checkpoints that mmengine writes and loads: by init_cfg, by load_checkpoint, and by the toolboxes' own tools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("mmengine")

from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.runner import load_checkpoint as load_by_mmengine

from sa_layers.backbones import SAN
from sa_layers.checkpoints import CheckpointError, MismatchError, load_checkpoint, read_state_dict
from sa_layers.convert import convert_checkpoint
from sa_layers.models import SelfAttentionClassifier

pytestmark = pytest.mark.openmmlab

SMALL: dict[str, Any] = {"depth": (1, 1, 1, 1, 1), "widths": (32,) * 5, "kernel_sizes": (3,) * 5}
SaveOfficial = Callable[..., dict[str, Tensor]]


class Classifier(BaseModel):
    """The smallest model with a SAN that mmengine's runner trains, with mmpretrain's names."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = SAN(**SMALL)
        self.head = nn.ModuleDict({"fc": nn.Linear(32, 3)})

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "loss") -> dict[str, Tensor]:
        scores = self.head["fc"](self.backbone(torch.stack(list(inputs)))[-1].mean((2, 3)))
        return {"loss": nn.functional.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long))}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What mmengine's runner writes, with optimizer, scheduler, message hub and moving average."""
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    runner = Runner(
        Classifier(),
        str(folder),
        train_dataloader={
            "dataset": [{"inputs": torch.randn(3, 64, 64), "data_samples": None} for _ in range(4)],
            "batch_size": 2,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "collate_fn": {"type": "pseudo_collate"},
        },
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
        param_scheduler={"type": "MultiStepLR", "milestones": [1]},
        train_cfg={"by_epoch": True, "max_epochs": 1},
        custom_hooks=[{"type": "EMAHook", "momentum": 0.5}],
        experiment_name=folder.name,
        randomness={"seed": 0},
        default_scope="mmengine",
    )
    runner.train()
    return folder / "epoch_1.pth"


def equal(model: nn.Module, state: dict[str, Tensor], prefix: str) -> bool:
    return all(torch.equal(values, state[prefix + name]) for name, values in model.state_dict().items())


def initialised(path: Path, network: dict[str, Any] | None = None, **init_cfg: Any) -> SAN:
    backbone = SAN(**SMALL | (network or {}), init_cfg={"type": "Pretrained", "checkpoint": str(path), **init_cfg})
    backbone.init_weights()
    return backbone


def test_checkpoint_of_the_runner(trained: Path, tmp_path: Path) -> None:
    """It loads everywhere; what mmengine writes beside the tensors is skipped. 'state_dict' is the moving average."""
    with pytest.raises(Exception, match="HistoryBuffer"):
        torch.load(trained, weights_only=True)
    written = torch.load(trained, weights_only=False)
    assert "HistoryBuffer" in repr(written["message_hub"])
    state = read_state_dict(trained)
    assert state.keys() == written["state_dict"].keys()
    assert all(torch.equal(values, written["state_dict"][name]) for name, values in state.items())
    assert not torch.equal(state["head.fc.weight"], written["ema_state_dict"]["module.head.fc.weight"])
    classifier, model = SelfAttentionClassifier(**SMALL, num_classes=3), Classifier()
    load_checkpoint(classifier, trained)
    load_checkpoint(model, trained)
    assert equal(classifier.network, state, "backbone.")
    assert equal(model, state, "")
    with pytest.raises(CheckpointError, match=r"have the wrong shape: backbone\.stem\.0\.weight is"):
        convert_checkpoint(trained, tmp_path / "ours.pth")  # its widths are not the published ones


@pytest.mark.parametrize("prefix", ["backbone.", "backbone", None])
def test_init_cfg(trained: Path, prefix: str | None) -> None:
    """With the prefix, and with a prefix that is forgotten."""
    options = {} if prefix is None else {"prefix": prefix}
    assert equal(initialised(trained, **options), read_state_dict(trained), "backbone.")


@pytest.mark.parametrize("layout", ["network.", "", "module.backbone."])
@pytest.mark.parametrize("prefix", [None, "backbone."])
def test_init_cfg_of_other_layouts(layout: str, prefix: str | None, tmp_path: Path) -> None:
    """The prefix is one in OpenMMLab's names; other layouts need none."""
    save_file = pytest.importorskip("safetensors.torch").save_file
    state = {layout + name: values + 1 for name, values in SAN(**SMALL).state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    options = {} if prefix is None else {"prefix": prefix}
    assert equal(initialised(tmp_path / "model.safetensors", **options), state, layout)


@pytest.mark.parametrize("prefix", [None, "backbone."])
def test_init_cfg_of_an_official_checkpoint(
    prefix: str | None, tmp_path: Path, official: Any, save_official: SaveOfficial
) -> None:
    """Converted on the fly, also where the config names the prefix of a converted one."""
    state = save_official(tmp_path / "official.pth", 10, "patchwise")
    options = {} if prefix is None else {"prefix": prefix}
    network = {"depth": 10, "attention": "patchwise", "widths": (64, 256, 512, 1024, 2048)}
    network["kernel_sizes"] = (3, 7, 7, 7, 7)
    backbone = initialised(tmp_path / "official.pth", network, **options)
    theirs = {official.our_name(name.removeprefix("module.")): values for name, values in state.items()}
    loaded = backbone.state_dict()
    for name, values in theirs.items():
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked"):
            assert torch.equal(loaded[name], values.to(loaded[name].dtype)), name


def part_of_the_norms(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: values for name, values in state.items() if "stages.3.blocks.0.norm1" not in name}


def without_a_stage(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: values for name, values in state.items() if "stages.4" not in name}


def of_a_resnet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        "backbone.conv1.weight": torch.ones(64, 3, 7, 7),
        "backbone.layer1.0.conv1.weight": torch.ones(64, 64, 1, 1),
    }


def head_alone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: values for name, values in state.items() if name.startswith("head.")}


def narrower(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return state | {"backbone.stem.0.weight": torch.ones(32, 1, 1, 1)}


BROKEN = {
    part_of_the_norms: "has only a part of some layers",
    without_a_stage: r"another depth: its stages have \(1, 1, 1, 1\) blocks",
    of_a_resnet: "has no tensor of this backbone",
    head_alone: "has no tensor",
    narrower: r"stem.0.weight is \(32, 1, 1, 1\) instead of \(32, 3, 1, 1\)",
}


@pytest.mark.parametrize("change", BROKEN)
@pytest.mark.parametrize("way", ["with a prefix", "without", "whole model"])
def test_what_does_not_fit(change: Callable[..., dict[str, Tensor]], way: str, tmp_path: Path) -> None:
    """mmengine would warn and go on with random weights. Loading a part on purpose is possible."""
    path, model = tmp_path / "checkpoint.pth", Classifier()
    state = change(dict(model.state_dict()))
    torch.save({"state_dict": state}, path)
    load = {
        "with a prefix": lambda: initialised(path, prefix="backbone."),
        "without": lambda: initialised(path),
        "whole model": lambda: load_by_mmengine(model, str(path)),
    }[way]
    with pytest.raises(MismatchError, match=BROKEN[change]):
        load()
    if change is not narrower:
        model.load_state_dict(state, strict=False)


def test_official_checkpoint_of_a_whole_model(tmp_path: Path, save_official: SaveOfficial) -> None:
    """mmengine gives the backbone of a whole model only the tensors below its prefix: the message says to convert."""
    save_official(tmp_path / "official.pth", 10, "pairwise")
    with pytest.raises(MismatchError, match=r"python -m sa_layers\.convert SRC DST"):
        load_by_mmengine(Classifier(), str(tmp_path / "official.pth"))


def test_layers_of_some_kinds(tmp_path: Path) -> None:
    """All layers of some kinds, such as adapters or norms, are no part of a kind: mmengine loads them."""
    model = Classifier()
    state = {name: values + 1 for name, values in model.state_dict().items() if ".norm1." in name}
    torch.save(state, tmp_path / "norms.pth")
    load_by_mmengine(model, str(tmp_path / "norms.pth"))
    assert all(torch.equal(values, state[name]) for name, values in model.state_dict().items() if name in state)


def test_scoped_name_and_second_try(trained: Path, tmp_path: Path) -> None:
    """A type with mmengine's scope, a path as an object, and a file that is there at the second try only."""
    path = tmp_path / "later.pth"
    backbone = SAN(**SMALL, init_cfg={"type": "mmengine.Pretrained", "checkpoint": path})
    with pytest.raises(FileNotFoundError):
        backbone.init_weights()
    path.symlink_to(trained)
    backbone.init_weights()
    assert equal(backbone, read_state_dict(trained), "backbone.")
    nn.init.zeros_(backbone.stem[0].weight)
    backbone.init_weights()  # has no effect, as in mmengine
    assert not backbone.stem[0].weight.any()


def test_other_initialisations() -> None:
    """They are done before a checkpoint is loaded, and init_cfg stays as it was given."""
    configs = [{"type": "Pretrained", "checkpoint": "none.pth"}, {"type": "Constant", "layer": "Conv2d", "val": 0.5}]
    backbone = SAN(**SMALL, init_cfg=configs)
    with pytest.raises(FileNotFoundError, match=r"none\.pth can not be found"):
        backbone.init_weights()
    assert backbone.init_cfg == configs
    assert bool((backbone.stem[0].weight == 0.5).all())


def test_messages_name_the_file(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.ones(3)}, tmp_path / "resnet.pth")
    message = r"resnet\.pth does not fit SAN: .*it has conv1\.weight, and this backbone expects stem\.0\.weight"
    with pytest.raises(MismatchError, match=message):
        initialised(tmp_path / "resnet.pth")
    with pytest.raises(MismatchError, match=r"resnet\.pth has no tensor whose name begins with backbone\."):
        initialised(tmp_path / "resnet.pth", prefix="backbone.")
    torch.save({f"student.{name}": values for name, values in SAN(**SMALL).state_dict().items()}, tmp_path / "ema.pth")
    with pytest.raises(MismatchError, match=r"ema\.pth has no tensor whose name begins with teacher\."):
        initialised(tmp_path / "ema.pth", prefix="teacher.")
