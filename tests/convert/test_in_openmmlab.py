"""Converted checkpoints in mmpretrain's classifiers and in the backbones of mmdet and mmseg."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

pytest.importorskip("mmengine")

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner.checkpoint import load_checkpoint

from sa_layers.convert import convert_checkpoint

pytestmark = pytest.mark.openmmlab

SIZES = {10: (2, 3, 64, 96), 15: (1, 3, 64, 64), 19: (1, 3, 64, 64)}


def build(scope: str, config_path: Path, **changes: Any) -> Any:
    """Build the model of one of our configs with changes."""
    pytest.importorskip(scope)
    config = Config.fromfile(config_path)
    config.merge_from_dict({f"model.{name}": value for name, value in changes.items()})
    config.model.data_preprocessor = config.model.get("data_preprocessor") or config.get("data_preprocessor")
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(config.model)


@pytest.mark.parametrize(("depth", "attention"), list(product(SIZES, ("pairwise", "patchwise"))))
def test_logits(
    depth: int,
    attention: str,
    tmp_path: Path,
    repository: Path,
    official: ModuleType,
    save_official: Callable[..., dict[str, torch.Tensor]],
) -> None:
    """mmpretrain's classifier with a converted checkpoint returns the logits of the official network."""
    state = save_official(tmp_path / "official.pth", depth, attention)
    convert_checkpoint(tmp_path / "official.pth", tmp_path / "ours.pth")
    config = repository / f"mm_configs/classification/san{depth}-{attention}_8xb32-coslr-100e_in1k.py"
    classifier = build("mmpretrain", config, **{"head.num_classes": 10}).double()
    load_checkpoint(classifier, str(tmp_path / "ours.pth"), strict=True)
    image = torch.randn(SIZES[depth], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        logits = classifier.eval()(image, mode="tensor")
        plain = {name.removeprefix("module."): values for name, values in state.items()}
        _, expected = official.official_network(image, plain, attention, depth)
    assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max()
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("scope", "attention", "config"),
    [
        ("mmdet", "pairwise", "detection/faster-rcnn_san10-pairwise_fpn_1x_coco.py"),
        ("mmseg", "patchwise", "segmentation/san10-patchwise_fpn_1xb8-1k_shapes-64x64.py"),
    ],
)
def test_pretrained(
    scope: str,
    attention: str,
    config: str,
    tmp_path: Path,
    repository: Path,
    save_official: Callable[..., dict[str, torch.Tensor]],
) -> None:
    """Backbones of a detector and a segmentor load all tensors of a converted checkpoint by init_cfg."""
    if scope == "mmdet":
        pytest.importorskip("mmcv._ext", exc_type=ImportError)
    save_official(tmp_path / "official.pth", 10, attention)
    convert_checkpoint(tmp_path / "official.pth", tmp_path / "ours.pth")
    init_cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "ours.pth"), "prefix": "backbone."}
    model = build(scope, repository / "mm_configs" / config, **{"backbone.init_cfg": init_cfg})
    model.init_weights()
    converted = torch.load(tmp_path / "ours.pth", weights_only=True)["state_dict"]
    expected = {name.removeprefix("backbone."): value for name, value in converted.items() if "backbone." in name}
    loaded = model.backbone.state_dict()
    assert set(loaded) == set(expected)
    for name, values in loaded.items():
        torch.testing.assert_close(values, expected[name].to(values.dtype), rtol=0, atol=0)
