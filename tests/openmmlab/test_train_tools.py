"""The toolboxes' own tools/train.py: a training of an iteration or two each, on the embedded data set.

Every run starts from a config file alone, without custom_imports.
"""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("mmengine")

from sa_layers.datasets import CLASSES
from sa_layers.ops import extension
from tests.conftest import MakeOnce, programs_in

from .conftest import make_workspace
from .toolboxes import modules, tool_program

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


SMALL_IMAGES = [
    f"{split}_dataloader.dataset.pipeline.{step}.scale=(96,96)" for split, step in (("train", 2), ("val", 1))
]
# The toolbox, the config and the options of each training.
TRAININGS: dict[str, tuple[str, str, list[str]]] = {
    "segmentation": (
        "mmseg",
        "mm_configs/segmentation/san10-patchwise_fpn_1xb8-1k_shapes-64x64.py",
        [
            *("train_cfg.max_iters=2", "train_cfg.val_interval=2", "default_hooks.checkpoint.interval=2"),
            *("train_dataloader.batch_size=2", *LOADERS[3:]),
        ],
    ),
    "classification": (
        "mmpretrain",
        "mm_configs/classification/san10-patchwise_1xb16-10e_shapes-64px.py",
        ["train_cfg.max_epochs=1", "default_hooks.checkpoint.save_best=None", "train_dataloader.batch_size=8"],
    ),
    "detection": (
        "mmdet",
        "mm_configs/detection/atss_san10-patchwise_fpn_1xb8-6e_shapes-64x64.py",
        ["train_cfg.max_epochs=1", "train_cfg.val_interval=1", *LOADERS[2::3]],
    ),
    "stock": ("mmdet", "stock.py", [*ONE_EPOCH, *SMALL_IMAGES]),
    "carafe": ("mmdet", "carafe.py", [*ONE_EPOCH, *SMALL_IMAGES]),
}


@pytest.fixture(scope="module")
def trained(make_once: MakeOnce, shapes: Path, repository: Path) -> Path:
    """The workspace after all trainings, each in a fork of one process, and what each printed."""
    present = [name for name in ("mmseg", "mmpretrain", "mmdet") if find_spec(name)]
    if not find_spec("mmcv._ext"):
        present.remove("mmdet")

    def make(folder: Path) -> None:
        make_workspace(folder, shapes, repository)
        (folder / "stock.py").write_text(STOCK_DETECTOR)
        (folder / "carafe.py").write_text(STOCK_CARAFE)
        programs = {}
        for name, (toolbox, config, options) in TRAININGS.items():
            arguments = (config, "--work-dir", folder / "work_dirs" / name, "--cfg-options", *options)
            if toolbox in present:
                programs[name] = tool_program(
                    folder, toolbox, "train.py", (*arguments, "default_hooks.logger.interval=1")
                )
        printed = programs_in(folder)(programs, imported=modules(*present))
        (folder / "printed.json").write_text(json.dumps(printed))

    return make_once("train_tools", make)


def check(trained: Path, name: str) -> str:
    """Checks the files of a training and returns its output."""
    folder, config = trained / "work_dirs" / name, trained / TRAININGS[name][1]
    written = next(folder.glob("*.py"))  # the config as mmengine read it
    for path in (config, written):
        assert name == "carafe" or "custom_imports" not in path.read_text()
    (scalars,) = folder.glob("*/vis_data/scalars.json")
    losses = [record["loss"] for line in scalars.read_text().splitlines() if "loss" in (record := json.loads(line))]
    assert losses
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    (checkpoint,) = folder.glob("*.pth")
    assert checkpoint.stat().st_size > 20e6
    checkpoint.unlink()  # optimiser states are large
    printed: str = json.loads((trained / "printed.json").read_text())[name]
    if extension.is_available():
        assert "computes with plain torch" not in printed
    assert "Failed to import" not in printed
    return printed


def test_segmentation(trained: Path) -> None:
    """mmseg, with the demo's config: two iterations and a validation."""
    pytest.importorskip("mmseg")
    assert "mIoU" in check(trained, "segmentation")


def test_classification(trained: Path) -> None:
    """mmpretrain, with our config: one iteration and a validation."""
    pytest.importorskip("mmpretrain")
    assert "accuracy/top1" in check(trained, "classification")


@pytest.mark.parametrize("name", ["detection", "stock", "carafe"])
def test_detection(trained: Path, name: str) -> None:
    """mmdet: our config, and its own of Faster R-CNN with the backbone and the data set replaced.

    In the last of them FPN_CARAFE's 'carafe' is replaced too.
    """
    pytest.importorskip("mmcv._ext", exc_type=ImportError)
    pytest.importorskip("mmdet")
    assert "Epoch(val)" in check(trained, name)  # no detection is confident enough yet for bbox_mAP
