"""Unknown keyword arguments and norms that do not fit are errors that name the class and the layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from torch import nn

from sa_layers.layers import PairwiseSelfAttention, SelfAttentionBlock
from sa_layers.layers.norm import NormError
from sa_layers.models import SelfAttentionClassifier, SelfAttentionNetwork

SMALL = {"depth": (1,) * 5, "widths": (32,) * 5, "kernel_sizes": (3,) * 5}


class Derived(SelfAttentionNetwork):
    """As users derive: an argument of its own, the others passed on."""

    def __init__(self, name: str, **options: object) -> None:
        super().__init__(**options)


@pytest.mark.parametrize(
    ("make", "called", "listed"),
    [
        (partial(SelfAttentionBlock, 32, 3), "SelfAttentionBlock", "channels, kernel_size, attention, dilation, "),
        (partial(SelfAttentionNetwork, **SMALL), "SelfAttentionNetwork", "depth, attention, in_channels, "),
        (partial(SelfAttentionClassifier, **SMALL), "SelfAttentionClassifier", "depth, attention, num_classes, "),
        (partial(Derived, "name", **SMALL), "Derived", "name, depth, attention, in_channels, "),
    ],
    ids=["block", "network", "classifier", "derived"],
)
@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_unknown_keyword(make: Callable[..., nn.Module], called: str, listed: str, attention: str) -> None:
    make = partial(make, attention=attention)
    with pytest.raises(
        TypeError, match=rf"^{called} has no argument 'relaton', did you mean 'relation'\? Its"
    ) as caught:
        make(relaton="dot")
    assert f" arguments are {listed}" in str(caught.value)
    for name in ("share", "position", "norm_layer"):
        assert f", {name}" in str(caught.value)
    with pytest.raises(TypeError, match=rf"^{called} has no argument 'zzz'; its arguments are "):
        make(zzz=1)
    make(share=4, relation=None, mapping_layers=1)


def test_what_a_block_sets_is_no_option() -> None:
    with pytest.raises(TypeError, match=r"^SelfAttentionBlock has no argument 'stride'"):
        SelfAttentionBlock(32, 3, stride=2)


GROUPS = 16  # divides 32, but not the 8 channels within a block nor the 4 channels of its mapping


@pytest.mark.parametrize(
    ("make", "layer", "channels", "divisors"),
    [
        (partial(PairwiseSelfAttention, 160, 160, 3), "mapping.0", 42, "1, 2, 3, 6, 7, 14, 21, 42"),
        (partial(PairwiseSelfAttention, 160, 160, 3, position=None), "mapping.0", 40, "1, 2, 4, 5, 8, 10, 20, 40"),
        (partial(PairwiseSelfAttention, 64, 64, 3, position=None, relation_channels=16), None, 16, ""),
        (partial(SelfAttentionBlock, 40, 3, share=2), "norm1", 40, "1, 2, 4, 5, 8, 10, 20, 40"),
        (partial(SelfAttentionBlock, 32, 3), "attention.mapping.0", 4, "1, 2, 4"),
        (partial(SelfAttentionNetwork, **SMALL), "stages.0.blocks.0.attention.mapping.0", 4, "1, 2, 4"),
        (
            partial(SelfAttentionNetwork, **SMALL | {"widths": (40,) * 5, "share": 2}),
            "stem.1",
            40,
            "1, 2, 4, 5, 8, 10, 20, 40",
        ),
    ],
)
def test_groups_that_do_not_divide(
    make: Callable[..., nn.Module], layer: str | None, channels: int, divisors: str
) -> None:
    """The layer is the name that it would have in ``named_modules``."""

    def norm_layer(channels: int) -> nn.Module:
        return nn.GroupNorm(GROUPS, channels)

    if layer is None:
        make(norm_layer=norm_layer)
        return
    with pytest.raises(NormError) as caught:
        make(norm_layer=norm_layer)
    message = str(caught.value)
    assert message.startswith(f"norm_layer cannot normalise the {channels} channels of {layer}: ")
    assert message.endswith(f"; {channels} is divisible by {divisors}")
    assert layer in dict(make().named_modules())


@pytest.mark.parametrize(("given", "message"), [((0, 8), "got 0 and 8"), ((8, 0), "got 8 and 0"), ((-8, -8), "got -8")])
def test_channels_are_positive(given: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"in_channels and out_channels must be positive, {message}"):
        PairwiseSelfAttention(*given, 3)


@pytest.mark.parametrize("channels", [0, 1, 3])
def test_blocks_have_at_least_four_channels(channels: int) -> None:
    with pytest.raises(ValueError, match=rf"channels must be a multiple of 16 and of 4 \* share, got {channels}"):
        SelfAttentionBlock(channels, 3)
