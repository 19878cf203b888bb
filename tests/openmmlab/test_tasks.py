"""A small model for each task: loss, gradients of the stem, and prediction."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("mmengine")

from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData, PixelData

pytestmark = pytest.mark.openmmlab

CHANNELS = (32, 64, 64, 96)
BACKBONE: dict[str, Any] = {
    "type": "sa_layers.SAN",
    "depth": (1, 1, 1, 1, 1),
    "widths": (32, *CHANNELS),
    "kernel_sizes": (3, 3, 5, 3, 7),
    "out_indices": (1, 2, 3, 4),
}
NECK = {"type": "FPN", "in_channels": list(CHANNELS), "out_channels": 32, "num_outs": 4}
ATTENTIONS = pytest.mark.parametrize("attention", ["pairwise", "patchwise"])


def build(scope: str, config: dict[str, Any], **backbone: Any) -> torch.nn.Module:
    """Build a model in the scope of its toolbox."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(ConfigDict(config | {"backbone": BACKBONE | backbone}))
    model.init_weights()
    return model.train()


def train_and_predict(model: torch.nn.Module, inputs: Any, samples: list[Any]) -> list[Any]:
    """Compute a loss with gradients and a prediction."""
    losses, _ = model.parse_losses(model.loss(inputs, samples))
    assert losses.isfinite()
    losses.backward()
    gradients = {name: parameter.grad for name, parameter in model.backbone.named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    assert gradients["stem.0.weight"].abs().max() > 0
    model.eval()
    with torch.no_grad():
        return model.predict(inputs, samples)


@ATTENTIONS
def test_segmentor(attention: str) -> None:
    """mmseg's EncoderDecoder with FPN and FPNHead."""
    pytest.importorskip("mmseg")
    from mmseg.structures import SegDataSample

    head = {
        "type": "FPNHead",
        "in_channels": [32] * 4,
        "in_index": [0, 1, 2, 3],
        "feature_strides": [4, 8, 16, 32],
        "channels": 16,
        "num_classes": 6,
        "norm_cfg": {"type": "BN"},
        "align_corners": False,
        "loss_decode": {"type": "CrossEntropyLoss"},
    }
    config = {"type": "EncoderDecoder", "neck": NECK, "decode_head": head, "test_cfg": {"mode": "whole"}}
    model = build("mmseg", config, attention=attention)
    samples = []
    for _ in range(2):
        sample = SegDataSample(metainfo={"img_shape": (64, 64), "ori_shape": (64, 64), "pad_shape": (64, 64)})
        sample.gt_sem_seg = PixelData(data=torch.randint(6, (1, 64, 64)))
        samples.append(sample)
    predictions = train_and_predict(model, torch.randn(2, 3, 64, 64), samples)
    assert predictions[0].pred_sem_seg.data.shape == (1, 64, 64)


@ATTENTIONS
def test_classifier(attention: str) -> None:
    """mmpretrain's ImageClassifier, which uses the last feature map."""
    pytest.importorskip("mmpretrain")
    from mmpretrain.structures import DataSample

    config = {
        "type": "ImageClassifier",
        "neck": {"type": "GlobalAveragePooling"},
        "head": {"type": "LinearClsHead", "num_classes": 5, "in_channels": 96},
    }
    model = build("mmpretrain", config, attention=attention, out_indices=4)
    samples = [DataSample().set_gt_label(label) for label in (1, 4)]
    predictions = train_and_predict(model, torch.randn(2, 3, 64, 64), samples)
    assert predictions[0].pred_score.shape == (5,)


@ATTENTIONS
def test_detector(attention: str) -> None:
    """mmdet's RetinaNet with FPN."""
    pytest.importorskip("mmcv._ext", exc_type=ImportError)
    pytest.importorskip("mmdet")
    from mmdet.structures import DetDataSample

    anchors = {
        "type": "AnchorGenerator",
        "octave_base_scale": 4,
        "scales_per_octave": 1,
        "ratios": [1.0],
        "strides": [4, 8, 16, 32],
    }
    head = {
        "type": "RetinaHead",
        "num_classes": 5,
        "in_channels": 32,
        "stacked_convs": 1,
        "feat_channels": 32,
        "anchor_generator": anchors,
    }
    config = {
        "type": "RetinaNet",
        "neck": NECK,
        "bbox_head": head,
        "train_cfg": {
            "assigner": {"type": "MaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.4, "min_pos_iou": 0},
            "sampler": {"type": "PseudoSampler"},
            "allowed_border": -1,
            "pos_weight": -1,
        },
        "test_cfg": {"nms_pre": 100, "score_thr": 0.0, "nms": {"type": "nms", "iou_threshold": 0.5}, "max_per_img": 9},
    }
    model = build("mmdet", config, attention=attention)
    samples = []
    for _ in range(2):
        metainfo = {"img_shape": (64, 64), "ori_shape": (64, 64), "pad_shape": (64, 64), "scale_factor": (1.0, 1.0)}
        sample = DetDataSample(metainfo=metainfo)
        sample.gt_instances = InstanceData(bboxes=torch.tensor([[8.0, 8.0, 40.0, 44.0]]), labels=torch.tensor([2]))
        samples.append(sample)
    predictions = train_and_predict(model, torch.randn(2, 3, 64, 64), samples)
    assert predictions[0].pred_instances.bboxes.shape[1] == 4


@ATTENTIONS
def test_attention_in_a_neck(attention: str) -> None:
    """conv_cfg replaces the convolutions of mmdet's FPN by our layers."""
    pytest.importorskip("mmcv._ext", exc_type=ImportError)
    pytest.importorskip("mmdet")
    name = {"pairwise": "PairwiseSelfAttention", "patchwise": "PatchwiseSelfAttention"}[attention]
    with DefaultScope.overwrite_default_scope("mmdet"):
        neck = MODELS.build(NECK | {"conv_cfg": {"type": f"sa_layers.{name}"}})
    outputs = neck([torch.randn(2, channels, 16 >> i, 16 >> i) for i, channels in enumerate(CHANNELS)])
    assert [tuple(output.shape) for output in outputs] == [(2, 32, 16 >> i, 16 >> i) for i in range(4)]
    assert sum(type(module).__name__ == name for module in neck.modules()) == 8
