"""The networks as modules: features, options, errors, copies."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch

from sa_layers.models import SelfAttentionNetwork

SMALL: dict[str, Any] = {"depth": (1, 1, 2, 1, 1), "widths": (32, 32, 64, 64, 96), "kernel_sizes": (3, 3, 5, 3, 7)}


def small(attention: str = "pairwise", **options: Any) -> SelfAttentionNetwork:
    """A network of a few thousand parameters, the same at every call."""
    torch.manual_seed(0)
    return SelfAttentionNetwork(attention=attention, **SMALL | options)


@pytest.fixture
def image() -> torch.Tensor:
    """Two images that are not square."""
    return torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("out_indices", [4, -1, (0,), (1, 2, 3, 4), (-2, -1), (0, -1), [2], range(5)])
def test_out_indices(out_indices: Any, image: torch.Tensor) -> None:
    """Features always come as a tuple, with the channels and strides that the network announces."""
    network = small(out_indices=out_indices)
    indices = [out_indices] if isinstance(out_indices, int) else list(out_indices)
    every = small(out_indices=range(5))(image)
    outputs = network(image)
    assert isinstance(outputs, tuple)
    assert len(outputs) == len(indices)
    for output, index, channels, stride in zip(
        outputs, indices, network.out_channels, network.out_strides, strict=True
    ):
        assert output.shape == (2, channels, 32 // stride, 64 // stride)
        torch.testing.assert_close(output, every[index])
        assert output.min() >= 0  # after the activation


@pytest.mark.parametrize("size", [(32, 32), (63, 33), (65, 95)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    """Pooling drops an odd row or column, as the official network's does."""
    outputs = small(out_indices=range(5)).eval()(torch.randn(1, 3, *size))
    for stage, output in enumerate(outputs):
        assert output.shape[2:] == (size[0] // 2 ** (stage + 1), size[1] // 2 ** (stage + 1))


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_strides_and_dilations(attention: str) -> None:
    """Output stride 8: the last two stages keep the map and dilate their footprints."""
    network = small(attention, strides=(2, 2, 2, 1, 1), dilations=(1, 1, 1, 2, 4), out_indices=(2, 3, 4))
    assert network.out_strides == (8, 8, 8)
    assert [tuple(features.shape[2:]) for features in network(torch.randn(1, 3, 24, 40))] == [(3, 5)] * 3
    assert network.stages[4].blocks[0].attention.footprint.dilation == (4, 4)


@pytest.mark.parametrize(
    ("attention", "options"),
    [
        ("pairwise", {"relation": "concatenation", "position": "absolute", "mapping_layers": 3}),
        ("pairwise", {"relation": "dot", "position": None, "mapping_layers": 1, "shared_transforms": "query_key"}),
        ("pairwise", {"relation": "hadamard", "shared_transforms": "all", "padding_mode": "zeros"}),
        ("patchwise", {"relation": "star", "shared_transforms": "all", "mapping_layers": 1}),
        ("patchwise", {"relation": "clique", "kernel_sizes": (3,) * 5, "share": 4}),
        ("patchwise", {"in_channels": 1, "norm_layer": lambda channels: torch.nn.GroupNorm(1, channels)}),
    ],
)
def test_attention_options_reach_every_layer(attention: str, options: dict[str, Any]) -> None:
    """And every parameter that makes a difference gets a gradient."""
    network = small(attention, **options)
    image = torch.randn(2, options.get("in_channels", 3), 64, 64)
    network(image)[0].square().sum().backward()
    for stage in network.stages:
        for block in stage.blocks:
            for name in ("relation", "mapping_layers", "shared_transforms", "padding_mode", "share"):
                assert getattr(block.attention, name) == options.get(name, getattr(block.attention, name))
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_with_cp(attention: str, image: torch.Tensor) -> None:
    """Recomputing activations changes no gradient."""
    gradients = []
    for with_cp in (False, True):
        network = small(attention, with_cp=with_cp).double()
        network(image.double())[0].square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_copies(attention: str, image: torch.Tensor) -> None:
    """Copied, pickled, saved and loaded, the network computes the same."""
    network = small(attention)
    network(image)  # moves the running statistics
    network.eval()
    expected = network(image)[0]
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    loaded = SelfAttentionNetwork(attention=attention, **SMALL).eval()
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), loaded):
        assert torch.equal(other(image)[0], expected)
        assert repr(other) == repr(network)


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_memory_format(attention: str, image: torch.Tensor) -> None:
    """channels_last, of the input and of the weights, and a sliced input give the same features."""
    network = small(attention).double().eval()
    image = image.double()
    expected = network(image)[0]
    wide = torch.randn(2, 3, 32, 130, dtype=torch.float64)
    wide[..., 1:129:2] = image
    for other in (image.to(memory_format=torch.channels_last), wide[..., 1:129:2]):
        torch.testing.assert_close(network(other)[0], expected)
    network = network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(image.to(memory_format=torch.channels_last))[0], expected)


ERRORS = [
    ({"depth": 50}, ["depth", "50", "10, 15, 19"]),
    ({"depth": (1, 2, 3)}, ["depth", "(1, 2, 3)", "5 stages"]),
    ({"depth": (1, 0, 1, 1, 1)}, ["depth", "(1, 0, 1, 1, 1)", "positive"]),
    ({"depth": "10"}, ["depth", "'10'"]),
    ({"attention": "global"}, ["attention", "'global'", "pairwise, patchwise"]),
    ({"relation": "star"}, ["relation", "'star'", "subtraction, summation, hadamard, dot, concatenation"]),
    ({"attention": "patchwise", "relation": "dot"}, ["relation", "'dot'", "concatenation, star, clique"]),
    ({"position": "learned"}, ["position", "'learned'", "relative, absolute or None"]),
    ({"attention": "patchwise", "position": "relative"}, ["position", "'relative'", "None"]),
    ({"mapping_layers": 4}, ["mapping_layers", "4", "1, 2 or 3"]),
    ({"shared_transforms": "key"}, ["shared_transforms", "'key'", "query_key", "all"]),
    ({"share": 5}, ["share", "5", "divide"]),
    ({"share": 0}, ["share", "0"]),
    ({"padding_mode": "replicate"}, ["padding_mode", "'replicate'", "reflect, zeros"]),
    ({"kernel_sizes": (3, 4, 7, 7, 7)}, ["kernel_size", "4", "odd"]),
    ({"kernel_sizes": (3, 7)}, ["kernel_sizes", "(3, 7)", "5 stages"]),
    ({"kernel_sizes": 7}, ["kernel_sizes", "7", "5 stages"]),
    ({"widths": (64, 128)}, ["widths", "(64, 128)", "5 stages"]),
    ({"strides": (2, 2, 2, 2)}, ["strides", "(2, 2, 2, 2)", "5 stages"]),
    ({"strides": (4, 2, 2, 2, 2)}, ["strides", "4", "1 or 2"]),
    ({"dilations": (1,)}, ["dilations", "(1,)", "5 stages"]),
    ({"dilations": (1, 1, 1, 1, 0)}, ["dilation", "0", "at least 1"]),
    ({"out_indices": (1, 5)}, ["out_indices", "(1, 5)", "0 to 4"]),
    ({"out_indices": -6}, ["out_indices", "-6", "-5 to -1"]),
    ({"out_indices": (2, 1)}, ["out_indices", "(2, 1)", "ascending"]),
    ({"out_indices": (4, -1)}, ["out_indices", "(4, -1)", "ascending"]),
    ({"out_indices": ()}, ["out_indices", "()"]),
]


@pytest.mark.parametrize(("options", "fragments"), ERRORS, ids=[str(options) for options, _ in ERRORS])
def test_errors(options: dict[str, Any], fragments: list[str]) -> None:
    """Messages name the argument, what was given and what is allowed."""
    with pytest.raises(ValueError, match=r".") as caught:
        small(**options)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_image_too_small() -> None:
    """Below the network's stride nothing would be left of the map."""
    with pytest.raises(ValueError, match="32 x 32 pixels, the network's stride, got 64 x 31"):
        small()(torch.zeros(1, 3, 64, 31))
    small(strides=(1, 2, 2, 1, 1)).eval()(torch.zeros(1, 3, 4, 4))


def test_unknown_option() -> None:
    """A misspelt option is an error."""
    with pytest.raises(TypeError, match="relations"):
        small(relations="dot")
