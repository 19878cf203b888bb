"""The registered attention layers in place of OpenMMLab's convolutions."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("mmengine")
pytest.importorskip("mmcv")

from mmcv.cnn import ConvModule, build_conv_layer

import sa_layers.backbones  # noqa: F401 - registers the bare names
from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention

LAYERS = {"PairwiseSelfAttention": PairwiseSelfAttention, "PatchwiseSelfAttention": PatchwiseSelfAttention}


@pytest.mark.parametrize("prefix", ["", "sa_layers."])
@pytest.mark.parametrize("name", LAYERS)
def test_build_conv_layer(name: str, prefix: str) -> None:
    """With and without the scope prefix."""
    layer = build_conv_layer({"type": prefix + name, "share": 4}, 16, 24, 3, stride=2, padding=1, bias=False)
    assert isinstance(layer, LAYERS[name])
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


@pytest.mark.parametrize("name", LAYERS)
def test_conv_module_without_a_norm(name: str) -> None:
    """As in mmdet's heads: an in-place ReLU directly behind the layer."""
    module = ConvModule(16, 16, 3, padding=1, conv_cfg={"type": f"sa_layers.{name}"}, act_cfg={"type": "ReLU"})
    assert module.activate.inplace
    features = torch.randn(2, 16, 8, 6)
    parameters = list(module.parameters())
    expected = torch.autograd.grad(module.conv(features).relu().sum(), parameters)
    torch.testing.assert_close(torch.autograd.grad(module(features).sum(), parameters), expected)


@pytest.mark.parametrize("name", LAYERS)
def test_norm_and_activation_by_config(name: str) -> None:
    """norm_cfg and act_cfg make the layers of the mapping; by default those of the layer itself."""
    config = {"type": f"sa_layers.{name}", "norm_cfg": {"type": "GN", "num_groups": 1}, "act_cfg": {"type": "GELU"}}
    layer = build_conv_layer(config, 16, 16, 3)
    kinds = [type(module) for module in layer.mapping]
    assert kinds == [nn.GroupNorm, nn.GELU, nn.Conv2d] * 2
    features = torch.randn(2, 16, 5, 5)
    torch.testing.assert_close(layer(features)[:1], layer(features[:1]))
    default = build_conv_layer({"type": name}, 16, 16, 3)
    plain = LAYERS[name](16, 16, 3)
    plain.load_state_dict(default.state_dict())
    assert [type(module) for module in default.mapping] == [type(module) for module in plain.mapping]
    torch.testing.assert_close(default(features), plain(features))


@pytest.mark.parametrize("name", LAYERS)
def test_norm_without_gradients(name: str) -> None:
    """norm_cfg's requires_grad, which belongs to mmcv's builder."""
    layer = build_conv_layer({"type": name, "norm_cfg": {"type": "BN", "requires_grad": False}}, 16, 16, 3)
    assert [parameter.requires_grad for parameter in layer.mapping[0].parameters()] == [False, False]


@pytest.mark.parametrize("name", LAYERS)
def test_copies(name: str) -> None:
    """A layer made by config is copied, pickled and converted to SyncBN like any other module."""
    layer = build_conv_layer({"type": f"sa_layers.{name}"}, 16, 16, 3).eval()
    features = torch.randn(1, 16, 5, 5)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(features), layer(features))
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(layer)
    assert isinstance(converted.mapping[0], nn.SyncBatchNorm)


@pytest.mark.parametrize("name", LAYERS)
def test_in_a_resnet(name: str) -> None:
    """conv_cfg turns every convolution of a ResNet that has a footprint into attention, and 1x1 ones too."""
    resnet = pytest.importorskip("mmpretrain.models").ResNet(
        50, stem_channels=16, base_channels=16, conv_cfg={"type": f"sa_layers.{name}", "share": 4}
    )
    assert isinstance(resnet.layer2[0].conv2, LAYERS[name])
    assert resnet(torch.randn(2, 3, 64, 64))[0].shape == (2, 512, 2, 2)


@pytest.mark.parametrize("name", LAYERS)
def test_spectral_norm(name: str) -> None:
    """A layer has no weight of its own; its linear layers have, in training and in evaluation."""
    config = {"type": f"sa_layers.{name}"}
    with pytest.raises(ValueError, match=f"{name} has no parameter 'weight'.*with_spectral_norm.*layer.transforms"):
        ConvModule(16, 16, 3, padding=1, conv_cfg=config, with_spectral_norm=True)
    layer = ConvModule(16, 16, 3, padding=1, conv_cfg=config)
    for linear in layer.conv.transforms():
        nn.init.constant_(linear.weight, 5)
        nn.utils.spectral_norm(linear, n_power_iterations=10)
    features = torch.randn(2, 16, 5, 5)
    layer(features).sum().backward()
    layer.eval()
    with torch.no_grad():
        output = layer(features)
    for linear in layer.conv.transforms():
        nn.utils.remove_spectral_norm(linear)
        assert torch.linalg.matrix_norm(linear.weight.flatten(1), 2).item() == pytest.approx(1)
    torch.testing.assert_close(output, layer(features))
    with pytest.raises(KeyError, match="other"):
        layer.conv._parameters["other"]
