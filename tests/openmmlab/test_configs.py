"""Every config builds a model that predicts and trains, and its classes match the data set."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("mmengine")

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope

from sa_layers.datasets import CLASSES, LABELS, PALETTE
from sa_layers.layers.self_attention import SelfAttention
from tests.sampling import sample

from .models import batch, build, need, train_once

pytestmark = pytest.mark.openmmlab

CONFIGS = Path(__file__).resolve().parents[2] / "mm_configs"
FILES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.py") if "_base_" not in path.parts)
ONE_PER_FAMILY = [
    "classification/san10-pairwise_8xb32-coslr-100e_in1k.py",
    "classification/san10-patchwise_8xb16_cifar10.py",
    "detection/atss_san10-patchwise_fpn_1x_coco.py",
    "detection/dino-4scale_san19-patchwise_8xb2-12e_coco.py",
    "detection/faster-rcnn_r50-patchwise-blocks-c3-c5_fpn_1x_coco.py",
    "detection/mask-rcnn_r50_fpn_patchwise-mask-head_1x_coco.py",
    "detection/retinanet_r50_fpn-patchwise_1x_coco.py",
    "segmentation/r50-d8_fcn-patchwise-7x7_4xb4-160k_ade20k-512x512.py",
    "segmentation/san10-pairwise-d8_deeplabv3plus_4xb4-160k_ade20k-512x512.py",
    "segmentation/san10-pairwise-d8_pspnet_4xb2-80k_cityscapes-512x1024.py",
    "segmentation/san10-pairwise_fpn_4xb4-160k_ade20k-512x512.py",
    "segmentation/san10-pairwise_upernet_4xb2-80k_cityscapes-512x1024.py",
]


def test_every_task_has_a_config() -> None:
    """Otherwise the parametrised tests below would be empty."""
    assert {name.split("/")[0] for name in FILES} == {"classification", "detection", "segmentation"}
    assert set(ONE_PER_FAMILY) <= set(FILES)


@pytest.mark.parametrize("name", sample(FILES, 40))
def test_names_something_of_ours(name: str) -> None:
    """Every config can be read, without an import of ours, and names a backbone or a layer of this package."""
    config = Config.fromfile(CONFIGS / name)
    assert "custom_imports" not in config
    assert "sa_layers." in repr(config)


@pytest.mark.parametrize("name", sample(FILES, 15))
def test_builds_and_predicts(name: str) -> None:
    """In its own scope, with a module of ours inside."""
    config = Config.fromfile(CONFIGS / name)
    need(config.default_scope)
    model = build(config).eval()
    assert any(type(module).__module__.startswith("sa_layers.") for module in model.modules())
    images, samples = batch(config.default_scope, number=1)
    with torch.no_grad():
        assert len(model.predict(images, samples)) == 1


PUBLIC_SEGMENTORS = [name for name in FILES if name.startswith("segmentation/san") and "shapes" not in name]


@pytest.mark.parametrize("name", sample(PUBLIC_SEGMENTORS, 10))
def test_segmentors_need_no_checkpoint(name: str) -> None:
    assert "init_cfg" not in Config.fromfile(CONFIGS / name).model.backbone


def test_segmentor_takes_a_checkpoint(tmp_path: Path) -> None:
    """With the options documented in the base config."""
    need("mmpretrain")
    shown = (CONFIGS / "_base_/models/encoder_san10-patchwise.py").read_text()
    assert "--cfg-options model.backbone.init_cfg.{type=Pretrained,checkpoint=FILE,prefix=backbone.}" in shown
    config = Config.fromfile(CONFIGS / "segmentation/san10-patchwise_fpn_4xb4-160k_ade20k-512x512.py")
    options = {"type": "Pretrained", "checkpoint": str(tmp_path / "none.pth"), "prefix": "backbone."}
    config.merge_from_dict({f"model.backbone.init_cfg.{option}": value for option, value in options.items()})
    with pytest.raises(FileNotFoundError, match=r"none\.pth can not be found"):
        MODELS.build(config.model.backbone).init_weights()


PAGE = (CONFIGS.parent / "docs" / "openmmlab.md").read_text()
DOCUMENTED = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "_base_" in block]


@pytest.mark.parametrize("number", range(len(DOCUMENTED)))
def test_documented(number: int, tmp_path: Path) -> None:
    """The configs shown in docs/openmmlab.md."""
    need("mmdet")
    (tmp_path / "config.py").write_text(DOCUMENTED[number])
    model = build(Config.fromfile(tmp_path / "config.py"))
    assert any(type(module).__module__.startswith("sa_layers.") for module in model.modules())


@pytest.mark.parametrize("name", ONE_PER_FAMILY)
def test_trains(name: str) -> None:
    """The loss is finite and has gradients with respect to our layers."""
    config = Config.fromfile(CONFIGS / name)
    need(config.default_scope)
    config.model.backbone.pop("frozen_stages", None)
    model = build(config)
    assert train_once(model, config.default_scope).isfinite()
    ours = [module for module in model.modules() if isinstance(module, SelfAttention)]
    gradients = [parameter.grad for module in ours for parameter in module.parameters()]
    assert gradients
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", [name for name in FILES if "shapes" in name])
def test_shapes_configs_name_the_classes(name: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Class names and colours match the data set, in the order of the toolbox."""
    monkeypatch.chdir(workspace)
    config = Config.fromfile(CONFIGS / name)
    need(config.default_scope)
    for split in ("train", "val"):
        with DefaultScope.overwrite_default_scope(config.default_scope):
            dataset = DATASETS.build(config[f"{split}_dataloader"].dataset)
        assert len(dataset) >= 5
        classes = dataset.metainfo["classes"]
        if config.default_scope == "mmpretrain":
            assert sorted(classes) == sorted(CLASSES)
            for index in range(len(dataset)):
                sample = dataset.get_data_info(index)
                assert classes[sample["gt_label"]] == Path(sample["img_path"]).parent.name
            assert config.model.head.num_classes == len(CLASSES)
        elif config.default_scope == "mmdet":
            assert tuple(classes) == CLASSES
            assert [tuple(colour) for colour in dataset.metainfo["palette"]] == list(PALETTE[1:])
            assert {item["bbox_label"] for i in range(len(dataset)) for item in dataset.get_data_info(i)["instances"]}
            assert config.model.bbox_head.num_classes == len(CLASSES)
        else:
            assert tuple(classes) == LABELS
            assert [tuple(colour) for colour in dataset.metainfo["palette"]] == list(PALETTE)
            assert config.model.decode_head.num_classes == len(LABELS)
