"""The command line and the hook, with models of OpenMMLab."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("mmengine")
pytest.importorskip("matplotlib")
pytest.importorskip("cv2")

import cv2
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner

from sa_layers.models import SelfAttentionNetwork
from sa_layers.visualize import attention_weights
from sa_layers.visualize.__main__ import main
from sa_layers.visualize.openmmlab import load_model, preprocess

from .networks import SMALL

pytestmark = pytest.mark.openmmlab

NORMALISATION: dict[str, Any] = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
BACKBONE = {"type": "sa_layers.SAN", "attention": "patchwise", **SMALL, "out_indices": (1, 2, 3, 4)}
NECK = {"type": "FPN", "in_channels": [32, 64, 64, 96], "out_channels": 16, "num_outs": 4}
SEGMENTOR = {
    "type": "EncoderDecoder",
    "data_preprocessor": {"type": "SegDataPreProcessor", **NORMALISATION, "bgr_to_rgb": True},
    "backbone": BACKBONE,
    "decode_head": {"type": "FCNHead", "in_channels": 96, "channels": 8, "num_convs": 1, "num_classes": 3},
    "test_cfg": {"mode": "whole"},
}
CLASSIFIER = {
    "type": "ImageClassifier",
    "backbone": BACKBONE | {"attention": "pairwise"},
    "neck": {"type": "GlobalAveragePooling"},
    "head": {"type": "LinearClsHead", "num_classes": 5, "in_channels": 96},
}
DETECTOR = {
    "type": "FCOS",
    "data_preprocessor": {"type": "DetDataPreprocessor", **NORMALISATION, "bgr_to_rgb": True, "pad_size_divisor": 32},
    "backbone": BACKBONE,
    "neck": NECK | {"conv_cfg": {"type": "sa_layers.PairwiseSelfAttention"}},
    "bbox_head": {"type": "FCOSHead", "num_classes": 2, "in_channels": 16, "feat_channels": 32, "stacked_convs": 1},
}
CONFIGS: dict[str, dict[str, Any]] = {
    "mmseg": {"model": SEGMENTOR},
    "mmpretrain": {"model": CLASSIFIER, "data_preprocessor": {**NORMALISATION, "to_rgb": True}},
    "mmdet": {"model": DETECTOR},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config for each toolbox, a photograph, a checkpoint of the segmentor."""
    pytest.importorskip("mmseg")
    root = tmp_path_factory.mktemp("visualize")
    for toolbox, config in CONFIGS.items():
        Config({"default_scope": toolbox, **config}).dump(root / f"{toolbox}.py")
    photograph = np.random.default_rng(0).integers(0, 80, (72, 96, 3), dtype=np.uint8)
    photograph[:, 60:] += 150
    cv2.imwrite(str(root / "photograph.png"), photograph)
    model = load_model(root / "mmseg.py")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("mapping.5.bias"):  # the rest of the weights depends on the image
                parameter.zero_()
    torch.save({"state_dict": model.state_dict(), "meta": {}}, root / "trained.pth")
    return root


@pytest.mark.parametrize("toolbox", CONFIGS)
def test_model_of_each_toolbox(toolbox: str, folder: Path) -> None:
    """Weights are those of the normalised image, as the toolbox normalises it."""
    pytest.importorskip("mmcv._ext" if toolbox == "mmdet" else toolbox, exc_type=ImportError)
    pytest.importorskip(toolbox)
    model = load_model(folder / f"{toolbox}.py")
    photograph = cv2.imread(str(folder / "photograph.png"))
    inputs = preprocess(model, photograph)
    mean, std = (np.array(NORMALISATION[name]) for name in ("mean", "std"))
    expected = ((photograph[..., ::-1] - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(inputs[0, :, :72, :96].numpy(), expected, atol=1e-4)
    assert inputs.shape[-2:] == ((96, 96) if toolbox == "mmdet" else (72, 96))
    seen = {layer.name: layer for layer in attention_weights(model, inputs)}
    backbone = {layer.name: layer for layer in attention_weights(model.backbone, inputs)}
    for name, layer in backbone.items():
        np.testing.assert_array_equal(seen[f"backbone.{name}"].weights, layer.weights)
        assert layer.softmax == (toolbox == "mmpretrain")
    assert len(seen) == len(backbone) + (8 if toolbox == "mmdet" else 0)


@pytest.mark.slow
def test_command_line(folder: Path, run_python: Callable[..., CompletedProcess[str]], tmp_path: Path) -> None:
    """In a process, with the checkpoint: two pictures, and a line for each layer."""
    arguments = ("-m", "sa_layers.visualize", folder / "photograph.png", folder / "mmseg.py")
    printed = run_python(None, *arguments, folder / "trained.pth", "--pixel", 59, 30, "--pixel", 20, 40).stdout
    assert "pixel 1 at x 59 y 30, pixel 2 at x 20 y 40" in printed
    lines = [line.split() for line in printed.splitlines() if line.startswith("backbone.stages.")]
    assert [line[0] for line in lines][3] == "backbone.stages.2.blocks.1.attention"
    assert all(0 <= float(value) <= 1 for line in lines for value in line[1:3])
    assert max(float(line[3]) for line in lines) > 0.1  # 0.000 without the checkpoint
    for name in ("weights.png", "receptive_field.png"):
        picture = cv2.imread(str(tmp_path / "attention" / name))
        assert picture.std() > 10
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100


def test_large_photograph_is_downscaled(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pixels are given in coordinates of the photograph."""
    large = cv2.resize(cv2.imread(str(folder / "photograph.png")), (1024, 200))
    cv2.imwrite(str(tmp_path / "large.png"), large)
    arguments = [tmp_path / "large.png", folder / "mmseg.py", "--pixel", 1023, 100, "--page", "--out", tmp_path]
    assert main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr().out
    assert "pixel 1 at x 511 y 50" in printed
    assert f"page: {tmp_path / 'index.html'}" in printed
    assert "start(document, [" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cat.jpg", "mmseg.py"], "image cat.jpg is missing or is not an image"),
        (["mmseg.py", "mmseg.py"], "image mmseg.py is missing or is not an image"),
        (["tiny.png", "mmseg.py"], "the image must be at least 32 x 32 pixels"),
        (["photograph.png", "none.py"], "config none.py is not a file"),
        (["photograph.png", "empty.py"], "config empty.py has no model"),
        (["photograph.png", "convolutions.py"], "EncoderDecoder has no attention layers of sa_layers"),
        (["photograph.png", "mmseg.py", "none.pth"], "cannot read none.pth: No such file or directory"),
        (["photograph.png", "mmseg.py", "mmseg.py"], "mmseg.py is not an intact checkpoint of tensors"),
        (
            ["photograph.png", "mmseg.py", "other.pth"],
            "checkpoint other.pth belongs to another model: of ",
        ),
        (
            ["photograph.png", "mmseg.py", "--pixel", "96", "0"],
            "pixel must lie in the image, x from 0 to 95 and y from 0 to 71, got 96 0",
        ),
    ],
)
def test_bad_input(
    arguments: list[str],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One sentence each."""
    monkeypatch.chdir(folder)
    cv2.imwrite("tiny.png", np.zeros((16, 40, 3), np.uint8))
    (folder / "empty.py").write_text("default_scope = 'mmseg'\n")
    resnet = {"type": "ResNetV1c", "depth": 18, "out_indices": (0, 1, 2, 3)}
    head = SEGMENTOR["decode_head"] | {"in_channels": 512}
    convolutional = SEGMENTOR | {"backbone": resnet, "decode_head": head}
    Config({"default_scope": "mmseg", "model": convolutional}).dump("convolutions.py")
    torch.save({"state_dict": nn.Conv2d(3, 8, 1).state_dict()}, "other.pth")
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: {message}")
    assert error.endswith(".")


def test_pictures_cannot_be_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [folder / "photograph.png", folder / "mmseg.py", "--out", folder / "mmseg.py"]
    assert main([str(argument) for argument in arguments]) == 1
    assert (
        f"error: cannot write {folder / 'mmseg.py' / 'weights.png'}: {folder / 'mmseg.py'} is not a folder."
        in capsys.readouterr().err
    )


class Classifier(BaseModel):
    """The smallest model that mmengine's runner trains."""

    def __init__(self) -> None:
        super().__init__({"type": "ImgDataPreprocessor", **NORMALISATION, "bgr_to_rgb": True})
        self.backbone = SelfAttentionNetwork(10, "patchwise", **{k: v for k, v in SMALL.items() if k != "depth"})
        self.head = nn.Linear(96, 2)

    def extract_feat(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.backbone(inputs)

    def forward(self, inputs: torch.Tensor, data_samples: Any = None, mode: str = "loss") -> dict[str, torch.Tensor]:
        labels = torch.arange(len(inputs), device=inputs.device) % 2
        scores = self.head(self.extract_feat(inputs)[-1].mean((2, 3)))
        return {"loss": nn.functional.cross_entropy(scores, labels)}


def batches() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
    return [{"inputs": image, "data_samples": None} for image in images] * 4


def train(work_dir: Path, **options: Any) -> dict[str, torch.Tensor]:
    """Trains for four iterations with the hook, given by name; returns the state dict."""
    torch.manual_seed(0)
    runner = Runner(
        Classifier(),
        str(work_dir),
        train_dataloader={
            "dataset": batches(),
            "batch_size": 2,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "collate_fn": {"type": "pseudo_collate"},
        },
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.01}},
        train_cfg={"by_epoch": False, "max_iters": 4},
        default_hooks={"checkpoint": None, "logger": None},
        custom_hooks=[{"type": "sa_layers.AttentionVisualizationHook", **options}] if options else [],
        visualizer={"type": "Visualizer", "vis_backends": [{"type": "LocalVisBackend"}]},
        experiment_name=work_dir.name,
        randomness={"seed": 0},
        default_scope="mmengine",
    )
    runner.train()
    return runner.model.state_dict()


def test_hook_draws_and_changes_nothing(folder: Path, tmp_path: Path) -> None:
    """In a real runner: the same parameters and statistics with pictures as without."""
    plain = train(tmp_path / "plain")
    watched = train(tmp_path / "watched", interval=2)
    assert all(torch.equal(plain[name], tensor) for name, tensor in watched.items())
    pictures = sorted(tmp_path.glob("watched/*/vis_data/vis_image/*.png"))
    assert [path.name for path in pictures] == ["attention_2.png", "attention_4.png"]
    shown = [cv2.imread(str(path)) for path in pictures]
    assert all(picture.std() > 10 for picture in shown)
    assert (shown[0] != shown[1]).any()


def test_hook_watches_a_photograph(folder: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", interval=4, image=str(folder / "photograph.png"), pixels=[(59, 30)])
    (picture,) = tmp_path.glob("run/*/vis_data/vis_image/attention_4.png")
    assert cv2.imread(str(picture)).std() > 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval": 0}, "interval must be a positive integer, got 0"),
        ({"image": "cat.jpg"}, "image cat.jpg is missing"),
    ],
)
def test_hook_refuses(options: dict[str, Any], message: str) -> None:
    from sa_layers.visualize.hook import AttentionVisualizationHook

    with pytest.raises(ValueError, match=message):
        AttentionVisualizationHook(**options)
