"""Pictures are not blank and depend on the weights. Default pixels lie on an edge and in a flat region."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("cv2")

from sa_layers.visualize import attention_weights, effective_receptive_field
from sa_layers.visualize.drawing import draw_receptive_fields, draw_weights
from sa_layers.visualize.pixels import choose_pixels
from sa_layers.visualize.weights import last_of_each_stage

from .networks import ATTENTIONS, image, small


def photograph() -> np.ndarray:
    """An image with a vertical edge."""
    pixels = np.full((64, 96, 3), 40, np.uint8)
    pixels[:, 60:] = 200
    return pixels


def test_chosen_pixels() -> None:
    chosen = choose_pixels(photograph())
    assert abs(chosen["edge"][0] - 59.5) <= 1
    assert abs(chosen["flat"][0] - 59.5) > 8
    assert choose_pixels(np.zeros((1, 1, 3), np.uint8)) == {"edge": (0, 0), "flat": (0, 0)}


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_pictures(attention: str) -> None:
    network, pixels = small(attention), {"edge": (60, 30), "flat": (20, 30)}
    layers = last_of_each_stage(attention_weights(network, image()))
    picture = draw_weights(photograph(), layers, pixels)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    colours = picture.reshape(-1, 3).astype(int)
    saturated = colours.max(1) - colours.min(1) > 60
    assert saturated.mean() > 0.02  # colour maps, where a blank figure is white
    bluish = (colours[:, 2] > colours[:, 0] + 60).mean()
    assert (bluish > 0.001) or attention == "pairwise"  # negative weights
    moved = draw_weights(photograph(), layers, pixels | {"flat": (70, 50)})
    assert (moved != picture).any()

    fields = {name: effective_receptive_field(network, image(), pixel) for name, pixel in pixels.items()}
    field_picture = draw_receptive_fields(photograph(), fields, pixels)
    colours = field_picture.reshape(-1, 3).astype(int)
    assert (colours.max(1) - colours.min(1) > 60).mean() > 0.005
