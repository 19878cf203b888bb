"""The toolboxes' inference functions on a photograph."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("mmengine")

import cv2
import torch
from mmengine.registry import DefaultScope

from sa_layers.datasets import LABELS, PALETTE

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


def test_segmentor(photograph: Path, tmp_path: Path) -> None:
    """A label for every pixel, and a picture with them."""
    need("mmseg")
    from mmseg.apis import MMSegInferencer

    config = CONFIGS / "segmentation/san10-patchwise_fpn_1xb8-1k_shapes-64x64.py"
    with DefaultScope.overwrite_default_scope("mmseg"):
        segment = MMSegInferencer(
            str(config), device="cpu", classes=list(LABELS), palette=[list(colour) for colour in PALETTE]
        )
        result = segment(str(photograph), out_dir=str(tmp_path / "drawn"))
    assert result["predictions"].shape == (80, 120)
    assert cv2.imread(str(tmp_path / "drawn/vis/cat.png")) is not None


def test_detector(photograph: Path, tmp_path: Path) -> None:
    """Boxes inside the image, and a picture with them."""
    need("mmdet")
    from mmdet.apis import DetInferencer

    config = CONFIGS / "detection/atss_san10-patchwise_fpn_1xb8-6e_shapes-64x64.py"
    detect = DetInferencer(str(config), device="cpu", show_progress=False)
    detect.model.bbox_head.test_cfg.score_thr = 0.0
    (found,) = detect(str(photograph), out_dir=str(tmp_path / "drawn"), pred_score_thr=0.0)["predictions"]
    boxes = torch.tensor(found["bboxes"])
    assert 0 < len(boxes) <= 100
    assert boxes.min() >= 0
    assert boxes[:, 2].max() <= 120
    drawn = cv2.imread(str(tmp_path / "drawn/vis/cat.png"))
    assert (drawn != cv2.imread(str(photograph))).any()


def test_classifier(photograph: Path, tmp_path: Path) -> None:
    """An ImageNet class for a model name of the model index, and a picture with its name."""
    need("mmpretrain")
    from mmpretrain import ImageClassificationInferencer

    from sa_layers.backbones import register_models

    register_models()
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        classify = ImageClassificationInferencer(
            "san10-patchwise_8xb32-coslr-100e_in1k", pretrained=False, device="cpu"
        )
        (result,) = classify(str(photograph), show_dir=str(tmp_path / "drawn"))
    assert result["pred_scores"].shape == (1000,)
    assert isinstance(result["pred_class"], str)
    assert cv2.imread(str(tmp_path / "drawn/cat.png")) is not None
