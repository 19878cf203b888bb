"""Scenes: geometric objects drawn over a background, with the pixels that each one shows.

Objects are placed front to back, so the visible part of each is known, and final, when it is placed: one that would
show too little is never drawn, and no unlabelled sliver of it is left in the picture. They are painted back to front.
"""

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sa_layers.datasets.classes import CLASSES

SMALLEST_OBJECT, LARGEST_OBJECT = 0.3, 0.7
"""Range of object diameters (of the circle round the outline), as a fraction of the scene's side."""

SMALLEST_DIAMETER = 12.0
"""No object is smaller than this many pixels: below it a star is a blot."""

MOST_OBJECTS = 3
"""Each scene has 1 to this many objects."""

LEAST_VISIBLE = 0.6
"""Least fraction of an object's area that must be neither occluded nor outside the picture."""

SUBPIXELS = 4
"""Objects are drawn this much larger in each direction and averaged down, for smooth edges."""

PLACEMENTS = 10
"""How often a place is drawn for an object before the scene goes without it."""

LEAST_CONTRAST = 90.0
"""Least distance in RGB (0 to 255) of an object's colour from what lies beneath it, where eight draws can give it."""


@dataclass(frozen=True)
class SceneObject:
    """One object: its class (an index into ``CLASSES``), the pixels it shows, and how much of it they are.

    ``mask`` is (size, size) bool; ``visible_fraction`` is its area over the area of the whole outline.
    """

    class_index: int
    mask: NDArray[np.bool_]
    visible_fraction: float


@dataclass(frozen=True)
class Scene:
    """A picture, (size, size, 3) uint8 in BGR order, and its objects from back to front."""

    image: NDArray[np.uint8]
    objects: tuple[SceneObject, ...]

    @property
    def label_map(self) -> NDArray[np.uint8]:
        """The class of every pixel, (size, size) uint8: 0 is background, i + 1 is ``CLASSES[i]``."""
        labels = np.zeros(self.image.shape[:2], np.uint8)
        for item in self.objects:
            labels[item.mask] = item.class_index + 1
        return labels


def outline(class_name: str, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return the corners of an upright shape in the unit circle, (corners, 2); stars vary in thickness."""
    if class_name == "circle":
        return _on_circle(96)
    if class_name == "triangle":
        return _on_circle(3, start=-np.pi / 2)
    if class_name == "star":
        corners = _on_circle(10, start=-np.pi / 2)
        corners[1::2] *= generator.uniform(0.38, 0.5)
        return corners
    raise ValueError(f"class_name must be one of {', '.join(CLASSES)}, got {class_name!r}")


def draw_scene(background: NDArray[np.float32], front_class: int, generator: np.random.Generator) -> Scene:
    """Draw 1 to ``MOST_OBJECTS`` objects over a background.

    Args:
        background: (size, size, 3) float32, 0 to 255; not changed.
        front_class: class index of the foremost object, which nothing occludes; the others' classes are random.
        generator: source of randomness.
    """
    size = background.shape[0]
    free = np.ones((size, size), bool)
    front_to_back: list[tuple[SceneObject, NDArray[np.float32]]] = []
    for number in range(int(generator.integers(1, MOST_OBJECTS + 1))):
        class_index = front_class if number == 0 else int(generator.integers(len(CLASSES)))
        for _ in range(PLACEMENTS):
            coverage, area = _place(CLASSES[class_index], size, generator)
            mask = (coverage >= 0.5) & free
            visible_fraction = min(1.0, float(mask.sum()) / area)
            if visible_fraction >= LEAST_VISIBLE:
                front_to_back.append((SceneObject(class_index, mask, visible_fraction), coverage))
                free &= ~mask
                break
    image = background.copy()
    for _, coverage in reversed(front_to_back):
        _paint(image, coverage, generator)
    objects = tuple(item for item, _ in reversed(front_to_back))
    return Scene(np.round(image).astype(np.uint8), objects)


def _on_circle(corners: int, start: float = 0.0) -> NDArray[np.float64]:
    angles = start + np.arange(corners) * (2 * np.pi / corners)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _place(class_name: str, size: int, generator: np.random.Generator) -> tuple[NDArray[np.float32], float]:
    """Return how much of each pixel a randomly placed shape covers, (size, size) in 0 to 1, and its whole area."""
    smallest = max(SMALLEST_OBJECT * size, SMALLEST_DIAMETER)
    radius = generator.uniform(smallest, LARGEST_OBJECT * size) / 2
    angle = generator.uniform(0, 2 * np.pi)
    # Up to a quarter of the radius may leave the picture: enough to learn from, too little to hide the shape.
    centre = generator.uniform(0.75 * radius, size - 0.75 * radius, size=2)
    rotation = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    corners = outline(class_name, generator) @ (radius * rotation) + centre
    x, y = corners.T
    area = abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2

    fine = np.zeros((size * SUBPIXELS, size * SUBPIXELS), np.uint8)
    fraction_bits = 4
    # Pixel centres are at whole numbers for OpenCV, at halves for us.
    points = np.round((corners * SUBPIXELS - 0.5) * 2**fraction_bits).astype(np.int32)
    # Filled with their number, so that the average over the subpixels of a pixel is how many are covered, unrounded.
    cv2.fillPoly(fine, [points], SUBPIXELS**2, shift=fraction_bits)
    covered = cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(covered / SUBPIXELS**2, np.float32), area


def _paint(image: NDArray[np.float32], coverage: NDArray[np.float32], generator: np.random.Generator) -> None:
    """Paint one object in a random colour that stands out from what is beneath it, lit from a random side."""
    beneath = image[coverage >= 0.5].mean(axis=0)
    for _ in range(8):
        hue, saturation, value = generator.uniform((0.0, 0.3, 0.35), (1.0, 1.0, 1.0))
        colour = 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))
        if np.linalg.norm(colour - beneath) >= LEAST_CONTRAST:
            break
    size = image.shape[0]
    angle, strength = generator.uniform((0.0, 0.0), (2 * np.pi, 0.35))
    along = np.linspace(-0.5, 0.5, size)
    light = 1 + strength * (np.cos(angle) * along[None, :] + np.sin(angle) * along[:, None])
    painted = np.clip(light[..., None] * colour, 0, 255).astype(np.float32)
    image += coverage[..., None] * (painted - image)
