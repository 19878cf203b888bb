"""The lists of CPU implementations of the attentions: their order, their reasons, and what they depend on."""

import os
import subprocess
import sys

import pytest
import torch

from sa_layers.ops import extension

pytestmark = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))


def pairwise(dtype="float32", channels=16, widths=(18, 8, 8), positions=2, stride=(1, 1), **size):
    text = torch.ops.sa_layers.pairwise_attention_implementations(
        dtype, channels, 64, widths, positions, (7, 7), "subtraction", stride, (1, 1), **size
    )
    return text.splitlines()


def patchwise(dtype="float32", weight_channels=2, relation="concatenation"):
    text = torch.ops.sa_layers.patchwise_attention_implementations(
        dtype, 16, 64, weight_channels, (7, 7), relation, (1, 1), (1, 1)
    )
    return text.splitlines()


def test_pairwise_attention_with_few_channels_has_pixels_in_lanes():
    assert pairwise() == ["pixels in lanes", "channels in lanes"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"channels": 17}, "query and key have 17 channels, more than 16"),
        ({"stride": (1, 2)}, "the horizontal stride is 2, not 1"),
        ({"dtype": "float64", "size": (5, 1)}, "rows of 1 pixels use less than three quarters"),
    ],
)
def test_pairwise_attention_says_why_pixels_are_not_in_lanes(change, reason):
    first, second = pairwise(**change)
    assert first.startswith(f"pixels in lanes: {reason}")
    assert second == "channels in lanes"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"widths": (18, 8, 8, 8, 8)}, "the mapping has 4 layers, more than 3"),
        ({"positions": 5}, "a position has 5 features, more than 4"),
    ],
)
def test_pairwise_attention_says_why_no_implementation_is_eligible(change, reason):
    assert pairwise(**change) == [f"pixels in lanes: {reason}", f"channels in lanes: {reason}"]


def test_rows_of_a_map_have_to_fill_the_vectors_of_the_instruction_set():
    command = (
        "import torch; from sa_layers.ops import extension; assert extension.is_available();"
        "print(torch.ops.sa_layers.pairwise_attention_implementations("
        "'float32', 4, 16, [6, 2, 2], 2, (3, 3), 'dot', (1, 1), (1, 1), size=[5, 3]))"
    )
    lines = {}
    for capability in ("default", "avx2"):
        environment = os.environ | {"SA_LAYERS_CPU_CAPABILITY": capability}
        done = subprocess.run(
            [sys.executable, "-c", command], env=environment, check=True, capture_output=True, text=True
        )
        lines[capability] = done.stdout.splitlines()
    assert lines["default"] == ["pixels in lanes", "channels in lanes"]
    if torch.ops.sa_layers.cpu_capability() != "default":
        reason = "rows of 3 pixels use less than three quarters of their vectors of 8 lanes"
        assert lines["avx2"] == [f"pixels in lanes: {reason}", "channels in lanes"]


def test_patchwise_attention_with_few_weights_has_pixels_in_lanes():
    assert patchwise() == ["pixels in lanes", "channels in lanes"]
    assert patchwise(weight_channels=8)[0] == ("pixels in lanes: there are 8 weights for each tap, more than 4")
    assert patchwise(relation="star")[0] == "pixels in lanes: the relation is a product, 'star' or 'clique'"


def test_patchwise_attention_has_no_implementation_for_float64():
    assert all(line.endswith("the kernel accumulates in float32") for line in patchwise(dtype="float64"))


def test_an_unknown_dtype_is_named():
    with pytest.raises(RuntimeError, match=r"dtype must be 'float32', .* got 'int8'"):
        pairwise(dtype="int8")
