"""The toolboxes' inference functions on a photograph."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("mmengine")

import cv2
from mmengine.registry import DefaultScope

from .models import need
from .test_configs import CONFIGS

pytestmark = pytest.mark.openmmlab


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """A photograph of a cat, 120 x 80 pixels."""
    data = pytest.importorskip("skimage.data")
    path = tmp_path / "cat.png"
    cv2.imwrite(str(path), cv2.resize(data.chelsea()[..., ::-1], (120, 80)))
    return path


def test_segmentor(photograph: Path) -> None:
    """mmseg.apis returns a label for every pixel."""
    need("mmseg")
    from mmseg.apis import inference_model, init_model

    model = init_model(str(CONFIGS / "segmentation/san10-patchwise_fpn_1xb8-1k_shapes-64x64.py"), device="cpu")
    assert inference_model(model, str(photograph)).pred_sem_seg.data.shape == (1, 80, 120)


def test_detector(photograph: Path) -> None:
    """mmdet.apis returns boxes inside the image."""
    need("mmdet")
    from mmdet.apis import inference_detector, init_detector

    config = str(CONFIGS / "detection/atss_san10-patchwise_fpn_1xb8-6e_shapes-64x64.py")
    model = init_detector(config, device="cpu", cfg_options={"model.test_cfg.score_thr": 0.0})
    boxes = inference_detector(model, str(photograph)).pred_instances.bboxes
    assert 0 < len(boxes) <= 100
    assert boxes.min() >= 0
    assert boxes[:, 2].max() <= 120


def test_classifier(photograph: Path) -> None:
    """mmpretrain's inferencer returns an ImageNet class for a model name of the model index."""
    need("mmpretrain")
    from mmpretrain import ImageClassificationInferencer

    from sa_layers.backbones import register_models

    register_models()
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        classify = ImageClassificationInferencer(
            "san10-patchwise_8xb32-coslr-100e_in1k", pretrained=False, device="cpu"
        )
        (result,) = classify(str(photograph))
    assert result["pred_scores"].shape == (1000,)
    assert isinstance(result["pred_class"], str)
