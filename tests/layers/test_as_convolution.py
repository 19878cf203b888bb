"""The layers in place of nn.Conv2d: its first eight arguments, output size and attributes; and their errors."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention, SelfAttentionBlock

LAYERS = pytest.mark.parametrize("layer_type", [PairwiseSelfAttention, PatchwiseSelfAttention])


@LAYERS
@pytest.mark.parametrize(
    "arguments",
    [
        (16, 32, 3, 1, 1),
        (16, 32, 5, 2, 2),
        (16, 32, 1, 2, 0),
        (16, 32, 3, 1, 2, 2),
        (16, 32, (3, 5), (1, 2), (2, 2), (2, 1), 1, False),
        (16, 8, 7, 2, 3, 1, 1, False),
    ],
)
def test_stands_in_for_conv2d(layer_type: type[nn.Module], arguments: tuple[Any, ...]) -> None:
    """Positional or by name: the shapes, and the attributes that others read from a convolution."""
    names = list(inspect.signature(nn.Conv2d).parameters)[: len(arguments)]
    assert list(inspect.signature(layer_type).parameters)[:8] == list(inspect.signature(nn.Conv2d).parameters)[:8]
    convolution = nn.Conv2d(*arguments)
    layer, by_name = layer_type(*arguments), layer_type(**dict(zip(names, arguments, strict=True)))
    for size in ((9, 12), (8, 7)):
        features = torch.randn(2, 16, *size)
        assert layer(features).shape == by_name(features).shape == convolution(features).shape
    for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"):
        assert getattr(layer, name) == getattr(convolution, name), name
    assert (layer.transposed, layer.output_padding) == (convolution.transposed, convolution.output_padding)
    assert (layer.query.bias is None) == (convolution.bias is None)


@LAYERS
def test_padding_may_be_left_out(layer_type: type[nn.Module]) -> None:
    """The default is the only padding that is supported."""
    assert layer_type(8, 8, 7, dilation=2).padding == (6, 6)


ERRORS = [
    ({"kernel_size": 4}, ValueError, ["kernel_size", "4", "odd"]),
    ({"kernel_size": 3.0}, TypeError, ["kernel_size", "3.0", "integer or a pair"]),
    ({"kernel_size": (3, 3, 3)}, TypeError, ["kernel_size", "(3, 3, 3)"]),
    ({"stride": 0}, ValueError, ["stride", "0", "at least 1"]),
    ({"dilation": (1, 0)}, ValueError, ["dilation", "(1, 0)", "at least 1"]),
    ({"padding": 0}, ValueError, ["padding", "(1, 1)", "got 0"]),
    ({"padding": (1, 2)}, ValueError, ["padding", "(1, 1)", "got (1, 2)"]),
    ({"groups": 2}, ValueError, ["groups", "must be 1", "got 2", "share"]),
    ({"relation": "cosine"}, ValueError, ["relation", "'cosine'", "concatenation"]),
    ({"position": "polar"}, ValueError, ["position", "'polar'", "None"]),
    ({"mapping_layers": 0}, ValueError, ["mapping_layers", "1, 2 or 3", "got 0"]),
    ({"share": 3}, ValueError, ["share", "16", "got 3"]),
    ({"shared_transforms": "value"}, ValueError, ["shared_transforms", "'value'", "query_key"]),
    ({"shared_transforms": "all", "relation_channels": 4}, ValueError, ["relation_channels", "16", "got 4"]),
    ({"padding_mode": "circular"}, ValueError, ["padding_mode", "'circular'", "reflect, zeros"]),
]


@LAYERS
@pytest.mark.parametrize(("options", "error", "fragments"), ERRORS, ids=[str(options) for options, *_ in ERRORS])
def test_errors(
    layer_type: type[nn.Module], options: dict[str, Any], error: type[Exception], fragments: list[str]
) -> None:
    """Messages name the argument, what was given and what is allowed."""
    with pytest.raises(error) as caught:
        layer_type(**{"in_channels": 16, "out_channels": 16, "kernel_size": 3} | options)
    for fragment in fragments:
        assert fragment in str(caught.value)


@LAYERS
def test_wrong_inputs(layer_type: type[nn.Module]) -> None:
    """A map with other channels or dimensions is an error."""
    layer = layer_type(16, 16, 3)
    for shape in ((2, 8, 5, 5), (16, 5), (2, 16, 5, 5, 5)):
        with pytest.raises((RuntimeError, ValueError)):
            layer(torch.randn(shape))


@LAYERS
def test_copies(layer_type: type[nn.Module]) -> None:
    """Copies, pickles and loaded state dicts compute the same."""
    layer = layer_type(8, 16, 3, dilation=2).eval()
    features = torch.randn(1, 8, 6, 6)
    loaded = layer_type(8, 16, 3, dilation=2).eval()
    loaded.load_state_dict(layer.state_dict())
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
        assert torch.equal(other(features), layer(features))
    assert "kernel_size=(3, 3)" in repr(layer)
    assert "dilation=(2, 2)" in repr(layer)


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_block_is_residual(attention: str) -> None:
    """With a zero expansion a block is the identity, and its input is unchanged."""
    block = SelfAttentionBlock(64, 3, attention)
    nn.init.zeros_(block.expansion.weight)
    nn.init.zeros_(block.expansion.bias)
    features = torch.randn(2, 64, 5, 4)
    before = features.clone()
    assert torch.equal(block(features), before)
    assert torch.equal(features, before)
    with pytest.raises(ValueError, match="attention must be one of pairwise, patchwise, got 'dot'"):
        SelfAttentionBlock(64, 3, "dot")


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_block_without_norm(attention: str) -> None:
    """An identity in place of the norm must not let an in-place activation reach the block's input."""
    block = SelfAttentionBlock(64, 3, attention, norm_layer=nn.Identity)
    features = torch.randn(2, 64, 5, 4)
    before = features.clone()
    expected = before + block.expansion(block.norm2(block.attention(before.relu())).relu())
    torch.testing.assert_close(block(features), expected)
    assert torch.equal(features, before)
