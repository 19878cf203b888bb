"""The networks equal the official ones: in parameters exactly, in function to rounding."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sa_layers.models import SelfAttentionNetwork

from .official_network import official_network, official_shapes, our_name, random_state

PARAMETERS = {
    (10, "pairwise"): 10_531_848,
    (10, "patchwise"): 11_841_124,
    (15, "pairwise"): 14_065_436,
    (15, "patchwise"): 16_181_310,
    (19, "pairwise"): 17_596_156,
    (19, "patchwise"): 20_518_470,
}
# 2 x 2 and 1 x 2 pixels in the last stage, whose footprint is 7 x 7
SIZES = {10: [(2, 3, 64, 64), (2, 3, 33, 70)], 15: [(1, 3, 64, 64)], 19: [(1, 3, 32, 96)]}


@pytest.mark.parametrize(("depth", "attention"), PARAMETERS)
def test_parameter_counts(depth: int, attention: str) -> None:
    """Those of the official networks, with their head of 1000 classes."""
    network = SelfAttentionNetwork(depth, attention)
    counted = sum(parameter.numel() for parameter in nn.Sequential(network, nn.Linear(2048, 1000)).parameters())
    shapes = official_shapes(attention, depth)
    official = sum(math.prod(shape) for name, shape in shapes.items() if "running" not in name)
    assert counted == official == PARAMETERS[depth, attention]


@pytest.mark.parametrize(("depth", "attention"), PARAMETERS)
def test_equals_the_official_network(depth: int, attention: str) -> None:
    """On maps smaller than the footprint and on maps that are not square, at every stage and at the head."""
    state = random_state(attention, depth)
    network = SelfAttentionNetwork(depth, attention, out_indices=range(5)).double().eval()
    ours = {our_name(name): values for name, values in state.items() if not name.startswith("fc.")}
    missing, unexpected = network.load_state_dict(ours, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    head = nn.Linear(2048, 10).double()
    head.load_state_dict({"weight": state["fc.weight"], "bias": state["fc.bias"]})
    for size in SIZES[depth]:
        image = torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        with torch.no_grad():
            outputs = network(image)
            logits = head(outputs[-1].mean((2, 3)))
            expected_outputs, expected_logits = official_network(image, state, attention, depth)
        for output, expected in zip(outputs, expected_outputs, strict=True):
            torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12 * float(expected.abs().max()))
        torch.testing.assert_close(logits, expected_logits, rtol=1e-12, atol=1e-12 * float(expected_logits.abs().max()))


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_single_precision_is_close(attention: str) -> None:
    """float32, in which everybody trains, agrees with the official network in float64."""
    state = random_state(attention, 10)
    network = SelfAttentionNetwork(10, attention).eval()
    ours = {our_name(name): values.float() for name, values in state.items() if not name.startswith("fc.")}
    network.load_state_dict(ours, strict=False)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        output = network(image.float())[0]
        expected = official_network(image, state, attention, 10)[0][-1]
    assert (output - expected).norm() <= 1e-4 * expected.norm()
