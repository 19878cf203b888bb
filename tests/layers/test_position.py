"""Position encodings: of the map at hand, or at the scale of the map of training."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention, PositionEncoding
from sa_layers.layers.position import coordinates
from sa_layers.models import SelfAttentionNetwork


def encode(encoding: PositionEncoding, height: int, width: int, **footprint: Any) -> torch.Tensor:
    """The encodings of the pairs of the pixel in the middle, away from the border: (channels, taps)."""
    encoded = encoding(torch.zeros(1, 1, height, width, dtype=torch.float64), 5, **footprint)
    return encoded.unflatten(3, (height, width))[0, :, :, height // 2, width // 2]


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("size", [9, (9, 7), (56, 100)])
def test_same_offsets_have_the_same_encoding(size: Any, dilation: int) -> None:
    """On maps of every size, once the size of training is given; by default they stretch with the map."""
    torch.manual_seed(0)
    kept, stretched = PositionEncoding("relative", size).double(), PositionEncoding("relative").double()
    stretched.load_state_dict(kept.state_dict())
    expected = encode(kept, 9, 9, dilation=dilation)
    for height, width in ((9, 11), (30, 10), (100, 101)):
        torch.testing.assert_close(encode(kept, height, width, dilation=dilation), expected)
    assert not torch.allclose(encode(stretched, 30, 10), encode(stretched, 9, 9))
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) >= 9:
        torch.testing.assert_close(encode(stretched, height, width, dilation=dilation), expected)


@pytest.mark.parametrize("position", ["relative", "absolute"])
def test_at_the_size_of_training(position: str) -> None:
    """There, the encodings are equal, also at the border."""
    torch.manual_seed(0)
    kept, stretched = PositionEncoding(position, (6, 9)), PositionEncoding(position)
    stretched.load_state_dict(kept.state_dict())
    features = torch.zeros(1, 1, 6, 9)
    torch.testing.assert_close(kept(features, 7), stretched(features, 7))


def test_coordinates() -> None:
    """From -1 to 1 by default; beyond on a larger map, with 0 in its middle; a map of one pixel is at -1."""
    features = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    horizontal, vertical = coordinates(features)[0]
    torch.testing.assert_close(horizontal[1], torch.linspace(-1, 1, 5, dtype=torch.float64), rtol=0, atol=1e-15)
    torch.testing.assert_close(vertical[:, 2], torch.linspace(-1, 1, 4, dtype=torch.float64), rtol=0, atol=1e-15)
    assert coordinates(torch.zeros(1, 1, 1, 1)).flatten().tolist() == [-1, -1]
    horizontal, vertical = coordinates(features, size=(3, 2))[0]
    assert horizontal[0].tolist() == [-4, -2, 0, 2, 4]
    assert vertical[:, 0].tolist() == [-1.5, -0.5, 0.5, 1.5]


def test_half_precision_on_a_large_map() -> None:
    """Coordinates in bfloat16 are rounded once, although it cannot represent indices up to 1000."""
    exact = coordinates(torch.zeros(1, 1, 2, 1000, dtype=torch.float64), size=(2, 224))[0, 0, 0]
    rounded = coordinates(torch.zeros(1, 1, 2, 1000, dtype=torch.bfloat16), size=(2, 224))[0, 0, 0]
    assert torch.equal(rounded, exact.to(torch.bfloat16))


@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        (1, ValueError, r"position_size must be at least 2, got 1"),
        ((7, 1), ValueError, r"position_size must be at least 2, got \(7, 1\)"),
        (0, ValueError, "position_size must be at least 1, got 0"),
        (7.0, TypeError, "position_size must be an integer or a pair of integers, got 7.0"),
    ],
)
def test_wrong_sizes(size: Any, error: type[Exception], message: str) -> None:
    """The message names the argument, what was given and what is allowed."""
    with pytest.raises(error, match=message):
        PairwiseSelfAttention(8, 8, 3, position_size=size)


def test_size_without_position() -> None:
    """Where there is no encoding there is nothing to scale."""
    for layer_type, options in ((PairwiseSelfAttention, {"position": None}), (PatchwiseSelfAttention, {})):
        with pytest.raises(ValueError, match="position_size must be None without a position encoding, got 7"):
            layer_type(8, 8, 3, position_size=7, **options)


SMALL: dict[str, Any] = {"depth": (1,) * 5, "widths": (32,) * 5, "kernel_sizes": (3,) * 5}


def test_network() -> None:
    """Every stage keeps the scale of its map in the training image; there, the network is the default one."""
    assert [
        block.attention.position.size
        for stage in SelfAttentionNetwork(position_image_size=224).stages
        for block in stage.blocks[:1]
    ] == [(112, 112), (56, 56), (28, 28), (14, 14), (7, 7)]
    torch.manual_seed(0)
    stretched = SelfAttentionNetwork(**SMALL).double().eval()
    kept = SelfAttentionNetwork(**SMALL, position_image_size=(64, 96)).double().eval()
    kept.load_state_dict(stretched.state_dict())
    trained, larger = torch.randn(1, 3, 64, 96).double(), torch.randn(1, 3, 96, 160).double()
    torch.testing.assert_close(kept(trained), stretched(trained))
    assert not torch.allclose(kept(larger)[0], stretched(larger)[0], rtol=1e-6, atol=1e-9)


def test_network_with_strides() -> None:
    """The map of a stage follows from the strides up to it."""
    network = SelfAttentionNetwork(**SMALL, strides=(2, 2, 2, 1, 1), position_image_size=(64, 100))
    sizes = [stage.blocks[0].attention.position.size for stage in network.stages]
    assert sizes == [(32, 50), (16, 25), (8, 12), (8, 12), (8, 12)]
    with pytest.raises(ValueError, match="position_image_size must be at least 64, twice the stride, got 32"):
        SelfAttentionNetwork(**SMALL, position_image_size=32)
    with pytest.raises(ValueError, match="position_size must be None without a position encoding"):
        SelfAttentionNetwork(**SMALL, attention="patchwise", position_image_size=224)
