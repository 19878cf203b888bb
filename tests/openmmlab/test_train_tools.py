"""The toolboxes' own tools/train.py: a training of an iteration or two each, on the embedded data set.

Every run starts from a config file alone, without custom_imports.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

pytest.importorskip("mmengine")

from sa_layers.datasets import CLASSES
from sa_layers.ops import extension

pytestmark = [pytest.mark.openmmlab, pytest.mark.slow]

STOCK_DETECTOR = f"""
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        _delete_=True, type='sa_layers.SAN', depth=10, attention='pairwise', out_indices=(1, 2, 3, 4)))

data_root = 'data/shapes/'
metainfo = dict(classes={CLASSES!r})
train_dataloader = dict(
    dataset=dict(
        data_root=data_root, metainfo=metainfo, ann_file='coco/instances_train.json',
        data_prefix=dict(img='images/train/')))
val_dataloader = dict(
    dataset=dict(
        data_root=data_root, metainfo=metainfo, ann_file='coco/instances_val.json',
        data_prefix=dict(img='images/val/')))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'coco/instances_val.json')
test_evaluator = val_evaluator
"""

STOCK_CARAFE = "custom_imports = dict(imports=['sa_layers.backbones.replace_carafe'])\n" + STOCK_DETECTOR.replace(
    "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", "carafe/faster-rcnn_r50_fpn-carafe_1x_coco.py"
)

# What makes a run short: few images, small ones, and no worker processes to start.
LOADERS = [
    f"{split}_dataloader.{option}"
    for split in ("train", "val")
    for option in ("num_workers=0", "persistent_workers=False", "dataset.indices=2")
]
ONE_EPOCH = ["train_cfg.max_epochs=1", *LOADERS]


@pytest.fixture
def train(
    workspace: Path, tools: dict[str, Path], run_python: Callable[..., CompletedProcess[str]]
) -> Callable[..., str]:
    """Run a toolbox's training tool in the workspace, check its files and return its output."""

    def train(toolbox: str, config: Path | str, *options: str) -> str:
        assert "custom_imports" not in (workspace / config).read_text() or "carafe" in str(config)
        folder = workspace / "work_dirs" / toolbox
        shutil.rmtree(folder, ignore_errors=True)
        options = ("default_hooks.logger.interval=1", *options)
        command = (tools[toolbox], config, "--work-dir", folder, "--cfg-options", *options)
        printed = run_python(None, *command, cwd=workspace).stdout
        written = next(folder.glob("*.py")).read_text()  # the config as mmengine read it
        assert "custom_imports" not in written or "carafe" in str(config)

        (scalars,) = folder.glob("*/vis_data/scalars.json")
        losses = [record["loss"] for line in scalars.read_text().splitlines() if "loss" in (record := json.loads(line))]
        assert losses
        assert all(math.isfinite(loss) and loss > 0 for loss in losses)
        (checkpoint,) = folder.glob("*.pth")
        assert checkpoint.stat().st_size > 20e6
        if extension.is_available():
            assert "computes with plain torch" not in printed
        assert "Failed to import" not in printed
        shutil.rmtree(folder)  # optimiser states are large
        return printed

    return train


def test_segmentation(train: Callable[..., str], workspace: Path) -> None:
    """mmseg, with the demo's config: two iterations and a validation."""
    pytest.importorskip("mmseg")
    (config,) = (workspace / "mm_configs/segmentation").glob("san10-*_fpn_*_shapes-*.py")
    iterations = ["train_cfg.max_iters=2", "train_cfg.val_interval=2", "default_hooks.checkpoint.interval=2"]
    printed = train("mmseg", config.relative_to(workspace), *iterations, "train_dataloader.batch_size=2", *LOADERS[3:])
    assert "mIoU" in printed


def test_classification(train: Callable[..., str]) -> None:
    """mmpretrain, with our config: one iteration and a validation."""
    pytest.importorskip("mmpretrain")
    options = ["train_cfg.max_epochs=1", "default_hooks.checkpoint.save_best=None", "train_dataloader.batch_size=8"]
    printed = train("mmpretrain", "mm_configs/classification/san10-patchwise_1xb16-10e_shapes-64px.py", *options)
    assert "accuracy/top1" in printed


def test_detection(train: Callable[..., str]) -> None:
    """mmdet, with our config: one iteration and a validation."""
    pytest.importorskip("mmcv._ext", exc_type=ImportError)
    pytest.importorskip("mmdet")
    config = "mm_configs/detection/atss_san10-patchwise_fpn_1xb8-6e_shapes-64x64.py"
    printed = train("mmdet", config, "train_cfg.max_epochs=1", "train_cfg.val_interval=1", *LOADERS[2::3])
    assert "Epoch(val)" in printed


def test_stock_detector(train: Callable[..., str], workspace: Path) -> None:
    """mmdet's Faster R-CNN config with only the backbone and the data set replaced."""
    pytest.importorskip("mmcv._ext", exc_type=ImportError)
    pytest.importorskip("mmdet")
    (workspace / "stock.py").write_text(STOCK_DETECTOR)
    sizes = [f"{split}_dataloader.dataset.pipeline.{step}.scale=(96,96)" for split, step in (("train", 2), ("val", 1))]
    printed = train("mmdet", "stock.py", *ONE_EPOCH, *sizes)
    assert "Epoch(val)" in printed  # no detection is confident enough yet for bbox_mAP


def test_stock_carafe(train: Callable[..., str], workspace: Path) -> None:
    """mmdet's Faster R-CNN with FPN_CARAFE, with only 'carafe', the backbone and the data set replaced."""
    pytest.importorskip("mmcv._ext", exc_type=ImportError)
    pytest.importorskip("mmdet")
    (workspace / "carafe.py").write_text(STOCK_CARAFE)
    sizes = [f"{split}_dataloader.dataset.pipeline.{step}.scale=(96,96)" for split, step in (("train", 2), ("val", 1))]
    printed = train("mmdet", "carafe.py", *ONE_EPOCH, *sizes)
    assert "Epoch(val)" in printed
