"""Arguments that are integers may be those of NumPy and of tensors; attributes are always Python's."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch

from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention
from sa_layers.models import SelfAttentionClassifier, SelfAttentionNetwork
from sa_layers.ops import aggregation

KINDS: list[Callable[[Any], Any]] = [numpy.array, torch.tensor, lambda values: [numpy.int64(value) for value in values]]


@pytest.mark.parametrize("kind", KINDS, ids=["numpy", "torch", "list"])
def test_networks(kind: Callable[[Any], Any]) -> None:
    options = {
        "depth": (1, 1, 2, 1),
        "widths": (32, 32, 64, 64),
        "kernel_sizes": (3, 3, 5, 3),
        "strides": (2, 2, 2, 1),
        "dilations": (1, 1, 1, 2),
        "out_indices": (0, 2),
        "position_image_size": (64, 96),
    }
    expected = SelfAttentionNetwork(**options, num_stages=4, in_channels=1)
    counts = {"num_stages": numpy.int8(4), "in_channels": numpy.uint8(1)}
    network = SelfAttentionNetwork(**{name: kind(values) for name, values in options.items()}, **counts)
    assert repr(network) == repr(expected)
    plain = ("out_indices", "out_channels", "out_strides", "stage_blocks", "min_size")
    assert json.dumps([getattr(network, name) for name in plain]) == json.dumps(
        [getattr(expected, name) for name in plain]
    )
    assert [features.shape for features in network(torch.zeros(1, 1, 32, 32))] == [(1, 32, 16, 16), (1, 64, 4, 4)]


def test_names_of_networks() -> None:
    with torch.device("meta"):
        network = SelfAttentionNetwork(numpy.int32(15), out_indices=numpy.int64(-1))
        classifier = SelfAttentionClassifier(numpy.array(10), num_classes=numpy.int64(7))
    assert network.stage_blocks == SelfAttentionNetwork.arch_settings[15]
    assert network.out_indices == (4,)
    assert classifier.head.weight.shape == (7, 2048)


@pytest.mark.parametrize("layer", [PairwiseSelfAttention, PatchwiseSelfAttention])
def test_layers(layer: Any) -> None:
    number = numpy.int8
    options = {"share": number(4), "mapping_layers": number(2), "relation_channels": number(4)}
    made = layer(number(8), number(16), number(3), number(2), number(2), number(2), number(1), **options)
    same = layer(8, 16, numpy.array([3, 3]), (2, 2), numpy.array([2, 2]), 2, share=4, relation_channels=4)
    assert repr(made) == repr(same)
    assert json.dumps(made.footprint) == json.dumps(same.footprint)
    assert made(torch.zeros(1, 8, 5, 5)).shape == (1, 16, 3, 3)


def test_operators() -> None:
    output = aggregation(torch.ones(1, 8, 5, 5), torch.ones(1, 1, 9, 9), numpy.int64(3), numpy.array([2, 2]))
    assert output.shape == (1, 8, 3, 3)


@pytest.mark.parametrize("size", [True, 3.0, "3", (3, 3, 3), numpy.array([3.0, 3.0]), numpy.bool_(True), None, {3, 5}])
def test_not_integers(size: Any) -> None:
    with pytest.raises(TypeError, match="kernel_size must be an integer or a pair of integers, got"):
        PairwiseSelfAttention(8, 8, size)
    with pytest.raises(TypeError, match="share must be an integer, got"):
        PairwiseSelfAttention(8, 8, 3, share=size)
