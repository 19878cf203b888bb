"""Effective receptive fields, compared with finite differences, and the measures of weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sa_layers.layers import PairwiseSelfAttention
from sa_layers.visualize import VisualizationError, difference, effective_receptive_field, entropy
from sa_layers.visualize.measures import half_radius

from .networks import ATTENTIONS, image, small


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_fields_grow_from_stage_to_stage(attention: str) -> None:
    network, pixel = small(attention), (40, 24)
    fields = effective_receptive_field(network, image(), pixel)
    assert list(fields) == [f"stages.{stage}" for stage in range(5)]
    for field in fields.values():
        assert field.shape == (64, 96)
        assert field.sum() == pytest.approx(1, abs=1e-5)
    reaches = [np.count_nonzero(field.any(0)) for field in fields.values()]
    assert reaches[0] <= 6  # of a 3x3 footprint at stride 2
    assert reaches == sorted(reaches)
    radii = [half_radius(field, pixel) for field in fields.values()]
    assert radii[0] < radii[1] < radii[-1]
    assert all(parameter.grad is None for parameter in network.parameters())


def test_field_is_the_gradient() -> None:
    """The field of a single layer is equal to finite differences."""
    torch.manual_seed(0)
    layer = PairwiseSelfAttention(1, 8, 3, position=None).eval()
    photograph = image(5, 5, channels=1)
    (field,) = effective_receptive_field(nn.Sequential(layer), photograph).values()
    expected = np.zeros((5, 5))
    with torch.no_grad():
        for row, column in np.ndindex(5, 5):
            step = torch.zeros_like(photograph)
            step[0, 0, row, column] = 1e-2
            moved = layer(photograph + step) - layer(photograph - step)
            expected[row, column] = abs(moved[0, :, 2, 2].sum())
    assert np.count_nonzero(field) == 9
    np.testing.assert_allclose(field, expected / expected.sum(), atol=1e-3)


@pytest.mark.parametrize("pixel", [(-1, 0), (96, 0), (0, 64)])
def test_pixel_outside(pixel: tuple[int, int]) -> None:
    with pytest.raises(VisualizationError, match="pixel must lie in the image, x from 0 to 95 and y from 0 to 63"):
        effective_receptive_field(small("pairwise"), image(), pixel)


def test_measures() -> None:
    """The entropy of a single nonzero weight is 0, and the difference of opposite weights is 2."""
    single = np.zeros((1, 3, 3), np.float32)
    single[0, 1, 1] = -4
    assert entropy(single) == 0
    assert difference(single, -single) == 2
    assert difference(single, single) == 0
    two = np.zeros((1, 3, 3), np.float32)
    two[0, 0, :2] = 1, -1
    assert entropy(two) == pytest.approx(np.log(2) / np.log(9))
