"""CARAFE in mmdet's stock configs, with 'carafe' replaced by ours: trains on a CPU, loads mmcv's weights, exports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("mmengine")

from mmengine.config import Config
from mmengine.registry import MODELS

from tests.layers.definitions import carafe_pack

from .models import build, need, train_once
from .toolboxes import toolbox

pytestmark = pytest.mark.openmmlab


@pytest.fixture(scope="module")
def replaced() -> Iterator[None]:
    """The name 'carafe' is ours, and mmcv's again afterwards."""
    need("mmdet")
    from mmcv.ops import CARAFEPack

    from sa_layers.backbones.carafe import replace_carafe

    replace_carafe()
    yield
    MODELS.register_module(name="carafe", module=CARAFEPack, force=True)


@pytest.fixture(scope="module")
def detector(replaced: None) -> nn.Module:
    """mmdet's Mask R-CNN with CARAFE in the neck and in the mask head."""
    config = Config.fromfile(toolbox("mmdet") / "configs/carafe/mask-rcnn_r50_fpn-carafe_1x_coco.py")
    config.model.backbone.depth = 18
    config.model.backbone.init_cfg = None
    config.model.neck.in_channels = [64, 128, 256, 512]
    config.model.neck.out_channels = config.model.rpn_head.in_channels = config.model.rpn_head.feat_channels = 32
    for extractor in (config.model.roi_head.bbox_roi_extractor, config.model.roi_head.mask_roi_extractor):
        extractor.out_channels = 32
    config.model.roi_head.bbox_head.in_channels = config.model.roi_head.mask_head.in_channels = 32
    config.model.roi_head.mask_head.conv_out_channels = 32
    return build(config)


def test_a_stock_detector_trains(detector: nn.Module) -> None:
    """Every CARAFE gets a gradient, and begins as mmdet initialises mmcv's: with nearly equal kernels."""
    layers = [*detector.neck.upsample_modules, detector.roi_head.mask_head.upsample]
    assert {type(layer).__module__ for layer in layers} == {"sa_layers.backbones.carafe"}
    assert all(layer.content_encoder.weight.std() < 0.002 for layer in layers)
    assert train_once(detector, "mmdet").isfinite()
    for layer in layers[:3]:
        assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters())


def test_the_weights_of_mmcv_load(detector: nn.Module) -> None:
    """By name, strictly; the output is that of mmcv's formula."""
    from mmcv.ops import CARAFEPack

    original = CARAFEPack(32, 2)
    nn.init.normal_(original.content_encoder.weight, std=0.3)
    layer = detector.neck.upsample_modules[0]
    layer.load_state_dict(original.state_dict())
    features = torch.randn(2, 32, 6, 5)
    torch.testing.assert_close(layer(features), carafe_pack(original, features))


class Neck(nn.Module):
    """FPN_CARAFE with its inputs as arguments."""

    def __init__(self, neck: nn.Module) -> None:
        super().__init__()
        self.neck = neck

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        return self.neck(features)


def test_the_neck_exports(detector: nn.Module, tmp_path: Path) -> None:
    """To ONNX, which computes the same in onnxruntime."""
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    neck = Neck(detector.neck).eval()
    features = tuple(torch.randn(1, 64 * 2**i, 32 // 2**i, 48 // 2**i) for i in range(4))
    path = tmp_path / "neck.onnx"
    torch.onnx.export(neck, features, path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)
    inputs = {item.name: feature.numpy() for item, feature in zip(session.get_inputs(), features, strict=True)}
    with torch.no_grad():
        expected = neck(*features)
    for found, output in zip(session.run(None, inputs), expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(found), output, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["sa_layers.CARAFEPack", "carafe"])
def test_upsampling_layers_by_name(replaced: None, name: str) -> None:
    from mmcv.cnn import build_upsample_layer

    layer = build_upsample_layer({"type": name, "up_kernel": 3}, channels=8, scale_factor=2)
    assert layer(torch.randn(1, 8, 4, 5)).shape == (1, 8, 8, 10)
