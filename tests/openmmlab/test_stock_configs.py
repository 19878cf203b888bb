"""Configs of mmdet, mmseg and mmpretrain with the backbone or a layer replaced by one of ours."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

pytest.importorskip("mmengine")

from mmengine.config import Config

from tests.sampling import sample

from .models import build, need, train_once
from .toolboxes import toolbox

pytestmark = pytest.mark.openmmlab

PAIRWISE = {"type": "sa_layers.PairwiseSelfAttention"}
PATCHWISE = {"type": "sa_layers.PatchwiseSelfAttention"}

BACKBONE_REPLACED = [
    "mmdet/atss/atss_r50_fpn_1x_coco.py",
    "mmdet/cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py",
    "mmdet/condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py",
    "mmdet/deformable_detr/deformable-detr_r50_16xb2-50e_coco.py",
    "mmdet/faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
    "mmdet/fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
    "mmdet/gfl/gfl_r50_fpn_1x_coco.py",
    "mmdet/mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py",
    "mmdet/retinanet/retinanet_r50_fpn_1x_coco.py",
    "mmdet/solo/solo_r50_fpn_1x_coco.py",
    "mmdet/vfnet/vfnet_r50_fpn_1x_coco.py",
    "mmdet/yolof/yolof_r50-c5_8xb8-1x_coco.py",
    "mmpretrain/resnet/resnet50_8xb32-coslr_in1k.py",
    "mmpretrain/resnet/resnet50_8xb32-lbs_in1k.py",
    "mmpretrain/resnet/resnet50_8xb32_in1k.py",
    "mmseg/ann/ann_r50-d8_4xb2-40k_cityscapes-512x1024.py",
    "mmseg/danet/danet_r50-d8_4xb2-40k_cityscapes-512x1024.py",
    "mmseg/deeplabv3/deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024.py",
    "mmseg/deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024.py",
    "mmseg/fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py",
    "mmseg/ocrnet/ocrnet_r101-d8_4xb2-40k_cityscapes-512x1024.py",
    "mmseg/point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py",
    "mmseg/pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py",
    "mmseg/sem_fpn/fpn_r50_4xb2-80k_cityscapes-512x1024.py",
    "mmseg/upernet/upernet_r50_4xb2-40k_cityscapes-512x1024.py",
]
LAYER_REPLACED: dict[str, dict[str, Any]] = {
    "mmdet/fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py": {"bbox_head": {"conv_cfg": PAIRWISE}},
    "mmdet/mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py": {"roi_head": {"mask_head": {"conv_cfg": PATCHWISE}}},
    "mmdet/retinanet/retinanet_r50_fpn_1x_coco.py": {"neck": {"conv_cfg": PATCHWISE}},
    "mmpretrain/resnet/resnet18_8xb32_in1k.py": {"backbone": {"conv_cfg": PAIRWISE}},
    "mmseg/fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py": {"decode_head": {"conv_cfg": PATCHWISE, "kernel_size": 7}},
    "mmseg/upernet/upernet_r50_4xb2-40k_cityscapes-512x1024.py": {"decode_head": {"conv_cfg": PAIRWISE}},
}


def shrink(config: Config) -> None:
    """Make the rest of the model smaller, to save time."""
    if "num_queries" in config.model:
        config.model.num_queries = 20
        config.model.encoder.num_layers = config.model.decoder.num_layers = 1


def replace_backbone(config: Config) -> None:
    """Replace the ResNet by a SAN10 with the same output channels and strides."""
    resnet = config.model.backbone
    strides, dilations = resnet.get("strides", (1, 2, 2, 2)), resnet.get("dilations", (1, 1, 1, 1))
    config.model.pop("pretrained", None)
    config.model.backbone = {
        "type": "sa_layers.SAN",
        "depth": 10,
        "attention": "pairwise" if "r50_fpn" in config.filename else "patchwise",
        "out_indices": tuple(index + 1 for index in resnet.get("out_indices", (0, 1, 2, 3))),
        "strides": (2, 2, *strides[1:]),
        "dilations": (1, *dilations),
    }
    if config.model.type == "ImageClassifier":
        config.model.backbone.out_indices = (4,)


def check(config: Config, scope: str, ours: str) -> None:
    """The loss has gradients, and sa_layers emits no warning."""
    shrink(config)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = build(config)
        loss = train_once(model, scope)
    assert loss.isfinite()
    assert not [str(item.message) for item in caught if "sa_layers" in f"{item.filename} {item.message}"]
    modules = [module for module in model.modules() if type(module).__name__ == ours]
    assert modules
    gradients = [parameter.grad for module in modules for parameter in module.parameters() if parameter.requires_grad]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("path", sample(BACKBONE_REPLACED, 15))
def test_backbone(path: str) -> None:
    """Only the backbone is replaced."""
    scope, _, name = path.partition("/")
    need(scope)
    config = Config.fromfile(toolbox(scope) / "configs" / name)
    replace_backbone(config)
    check(config, scope, "SAN")


@pytest.mark.parametrize("path", LAYER_REPLACED)
def test_layer(path: str) -> None:
    """Only one conv_cfg is replaced."""
    scope, _, name = path.partition("/")
    need(scope)
    config = Config.fromfile(toolbox(scope) / "configs" / name)
    config.merge_from_dict({"model": LAYER_REPLACED[path]})
    check(
        config, scope, "PairwiseSelfAttention" if "Pairwise" in str(LAYER_REPLACED[path]) else "PatchwiseSelfAttention"
    )
