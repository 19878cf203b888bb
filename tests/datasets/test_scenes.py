"""Outlines, coverage, visibility and masks of the drawn objects."""

import cv2
import numpy as np
import pytest

from sa_layers.datasets.classes import CLASSES
from sa_layers.datasets.photographs import SPLIT_COLUMNS, load_photographs, random_crop
from sa_layers.datasets.scenes import MIN_VISIBLE, _place, draw_scene, outline


@pytest.mark.parametrize(("name", "corners"), [("circle", 96), ("triangle", 3), ("star", 10)])
def test_outlines_fit_the_unit_circle(name: str, corners: int) -> None:
    points = outline(name, np.random.default_rng(0))
    assert points.shape == (corners, 2)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1).max(), 1)
    # The corners go round once, so filling the outline fills the shape: an outline that crosses itself turns less.
    angles = np.unwrap(np.arctan2(points[:, 1], points[:, 0]))
    assert abs(angles[-1] - angles[0]) < 2 * np.pi
    assert len(set(np.sign(np.diff(angles)))) == 1


def test_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"class_name must be one of circle, .* got 'heart'"):
        outline("heart", np.random.default_rng(0))


@pytest.mark.parametrize("name", CLASSES)
def test_coverage_adds_up_to_the_area_of_the_outline(name: str) -> None:
    inside = 0
    for seed in range(40):
        coverage, area = _place(name, 96, np.random.default_rng(seed))
        edge = np.concatenate([coverage[0], coverage[-1], coverage[:, 0], coverage[:, -1]])
        if not edge.any():
            inside += 1
            # OpenCV fills the pixels that the outline touches: half a subpixel more all round.
            assert coverage.sum() == pytest.approx(area, rel=0.12, abs=4)
        assert coverage.min() >= 0
        assert coverage.max() == 1
        assert ((coverage > 0) & (coverage < 1)).any(), "edges must be smooth"
    assert inside > 5


@pytest.mark.parametrize("front_class", range(len(CLASSES)))
def test_labels_match_the_painted_objects(front_class: int) -> None:
    background = np.full((64, 64, 3), 128, np.float32)
    for seed in range(20):
        scene = draw_scene(background, front_class, np.random.default_rng(seed))
        front = scene.objects[-1]
        assert front.class_index == front_class
        assert front.visible_fraction > 0.6, "the foremost object always gets a crop"
        assert all(item.visible_fraction >= MIN_VISIBLE for item in scene.objects)
        painted = np.abs(scene.image.astype(int) - 128).max(axis=2) > 12
        labelled = scene.label_map > 0
        # Every painted pixel is labelled except at edges, where objects share pixels.
        border = cv2.dilate(labelled.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        assert not (painted & ~border).any()
    assert (background == 128).all()


def test_a_mask_shows_one_object_only() -> None:
    """The colour changes slowly within a mask. Another painting order would leave edges inside masks."""
    inner_pixels = edges = 0
    for seed in range(60):
        scene = draw_scene(np.full((64, 64, 3), 128, np.float32), 0, np.random.default_rng(seed))
        for item in scene.objects:
            inner = cv2.erode(item.mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
            for axis in (0, 1):
                step = np.abs(np.diff(scene.image.astype(int), axis=axis)).max(axis=2)
                both = np.logical_and(*(np.delete(inner, edge, axis=axis) for edge in (0, -1)))
                inner_pixels += both.sum()
                edges += (step[both] > 4).sum()
    assert inner_pixels > 10_000
    # The tip of a star in front may cover a part of a pixel that is too small for the pixel to be the star's.
    assert edges < 2e-3 * inner_pixels


@pytest.mark.parametrize("split", list(SPLIT_COLUMNS))
@pytest.mark.parametrize("size", [32, 500])
def test_crops_of_every_photograph(split: str, size: int) -> None:
    for photograph in load_photographs(split):
        crop = random_crop(photograph, size, np.random.default_rng(0))
        assert crop.shape == (size, size, 3)
        assert crop.dtype == np.float32
        assert 0 <= crop.min() < crop.max() <= 255
        assert crop.std() > 3, "a photograph, not a flat field"
