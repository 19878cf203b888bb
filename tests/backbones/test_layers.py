"""The attention layers by name, wherever OpenMMLab builds a convolution."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("mmengine")
pytest.importorskip("mmcv")

from mmcv.cnn import ConvModule, build_conv_layer

import sa_layers.backbones  # noqa: F401 - registers the bare names
from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention

LAYERS = {"PairwiseSelfAttention": PairwiseSelfAttention, "PatchwiseSelfAttention": PatchwiseSelfAttention}


@pytest.mark.parametrize("prefix", ["", "sa_layers."])
@pytest.mark.parametrize("name", LAYERS)
def test_build_conv_layer(name: str, prefix: str) -> None:
    """By the bare name and in our scope, with options of its own."""
    layer = build_conv_layer({"type": prefix + name, "share": 4}, 16, 24, 3, stride=2, padding=1, bias=False)
    assert type(layer) is LAYERS[name]
    assert layer(torch.randn(2, 16, 9, 9)).shape == (2, 24, 5, 5)
    assert layer.share == 4


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    "options", [{"kernel_size": 1}, {"kernel_size": 3, "padding": 2, "dilation": 2}, {"kernel_size": 7, "padding": 3}]
)
def test_conv_module(name: str, options: dict[str, Any]) -> None:
    """mmcv's ConvModule, of which necks and heads are made, exports the layer's attributes."""
    module = ConvModule(16, 16, **options, conv_cfg={"type": f"sa_layers.{name}"}, norm_cfg={"type": "BN"})
    output = module(torch.randn(2, 16, 8, 6))
    assert output.shape == (2, 16, 8, 6)
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert module.kernel_size == (options["kernel_size"],) * 2
    assert not module.transposed
