"""Common mistakes of users raise errors that name the cause."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("mmengine")

from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import load_checkpoint, save_checkpoint

from sa_layers.backbones import SAN

from .models import batch, build, need
from .test_configs import CONFIGS

pytestmark = pytest.mark.openmmlab

SMALL: dict[str, Any] = {"depth": (1, 1, 1, 1, 1), "widths": (32, 32, 32, 32, 32), "kernel_sizes": (3, 3, 3, 3, 3)}
SEGMENTOR = "segmentation/san10-patchwise_fpn_1xb8-1k_shapes-64x64.py"
DETECTOR = "detection/atss_san10-patchwise_fpn_1xb8-6e_shapes-64x64.py"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "sa_layers.SAM"}, "sa_layers.SAM is not in the"),
        ({"type": "sa_layers.SAN", "depht": 10}, "depht"),
        ({"type": "sa_layers.SAN", "depth": 50}, "depth must be one of 10, 15, 19"),
        ({"type": "sa_layers.SAN", "attention": "patch-wise"}, "attention must be one of pairwise, patchwise"),
        ({"type": "sa_layers.SAN", "out_indices": (1, 2, 3, 5)}, "out_indices must be ascending stages"),
        ({"type": "sa_layers.SAN", "relation": "substraction"}, "relation must be one of subtraction"),
    ],
)
def test_backbone(options: dict[str, Any], message: str) -> None:
    """Misspelled names and invalid values of the backbone's arguments."""
    with pytest.raises((KeyError, TypeError, ValueError), match=message):
        MODELS.build(options)


@pytest.mark.parametrize(
    ("conv_cfg", "message"),
    [
        ({"type": "sa_layers.PatchwiseSelfAttention", "shares": 4}, "shares"),
        ({"type": "sa_layers.PatchwiseSelfAttention", "share": 7}, "share must divide out_channels"),
    ],
)
def test_layer(conv_cfg: dict[str, Any], message: str) -> None:
    """Misspelled names and invalid values in a conv_cfg. For an unknown type mmcv says 'Cannot find None'."""
    from mmcv.cnn import build_conv_layer

    with pytest.raises((KeyError, TypeError, ValueError), match=message):
        build_conv_layer(conv_cfg, 16, 16, 3)


def test_out_indices_do_not_match_the_neck() -> None:
    """out_indices of stages 0 to 3 with a neck for stages 1 to 4."""
    need("mmseg")
    config = Config.fromfile(CONFIGS / SEGMENTOR)
    config.model.backbone.out_indices = (0, 1, 2, 3)
    with pytest.raises(RuntimeError, match="to have 256 channels, but got 64 channels"):
        build(config).loss(*batch("mmseg"))


@pytest.mark.parametrize(
    ("saved", "loading", "message"),
    [
        ({"attention": "pairwise"}, {"attention": "patchwise"}, "is for pairwise .*, but this backbone has patchwise"),
        ({"attention": "patchwise"}, {"attention": "pairwise"}, "is for patchwise .*, but this backbone has pairwise"),
        ({"depth": (1, 1, 2, 1, 1)}, {}, r"have \(1, 1, 2, 1, 1\) blocks, this backbone has \(1, 1, 1, 1"),
    ],
)
@pytest.mark.parametrize("way", ["init_cfg", "load_checkpoint"])
def test_checkpoint_of_another_network(
    saved: dict[str, Any], loading: dict[str, Any], message: str, way: str, tmp_path: Path
) -> None:
    """The checkpoint is rejected, although mmengine would load the matching tensors."""
    model = torch.nn.ModuleDict({"backbone": SAN(**SMALL | saved)})
    path = str(tmp_path / "checkpoint.pth")
    save_checkpoint({"state_dict": model.state_dict()}, path)
    init_cfg = {"type": "Pretrained", "checkpoint": path, "prefix": "backbone."}
    backbone = SAN(**SMALL | loading, init_cfg=init_cfg)
    whole = torch.nn.ModuleDict({"backbone": backbone})
    load = backbone.init_weights if way == "init_cfg" else partial(load_checkpoint, whole, path)
    with pytest.raises(ValueError, match=message):
        load()


def test_missing_checkpoint() -> None:
    """The configs for COCO freeze a stage, so they start from a classifier's weights or not at all."""
    need("mmdet")
    config = Config.fromfile(CONFIGS / "detection/faster-rcnn_san10-patchwise_fpn_1x_coco.py")
    with pytest.raises(FileNotFoundError, match=r"epoch_100\.pth can not be found"):
        MODELS.build(config.model.backbone).init_weights()


def test_image_too_small() -> None:
    """An image smaller than the network's stride."""
    with pytest.raises(ValueError, match="at least 32 x 32 pixels"):
        SAN(**SMALL)(torch.randn(1, 3, 31, 64))


def test_missing_image(tmp_path: Path) -> None:
    """The error contains the path of the missing image."""
    need("mmdet")
    image = {"id": 1, "file_name": "000000.png", "width": 64, "height": 64}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 30, 30], "area": 900, "iscrowd": 0}
    categories = [{"id": index, "name": name} for index, name in enumerate(("circle", "star", "triangle"), 1)]
    annotations = {"images": [image], "annotations": [box], "categories": categories}
    (tmp_path / "annotations.json").write_text(json.dumps(annotations))
    config = Config.fromfile(CONFIGS / DETECTOR).train_dataloader.dataset
    config.update(data_root=str(tmp_path), ann_file="annotations.json")
    with DefaultScope.overwrite_default_scope("mmdet"):
        images = DATASETS.build(config)
    with pytest.raises(FileNotFoundError, match=r"images/train/000000\.png"):
        images[0]
