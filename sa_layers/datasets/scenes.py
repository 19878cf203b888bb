"""Scenes: geometric objects drawn over a background, with a mask of the visible pixels of each object.

Objects are placed from front to back, so the visible part of each object is final when it is placed. Objects that are
mostly occluded are discarded before anything is drawn. The remaining objects are painted from back to front.
"""

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sa_layers.datasets.classes import CLASSES

MIN_OBJECT, MAX_OBJECT = 0.3, 0.7
"""Range of diameters of an object's circumscribed circle, as a fraction of the scene's side."""

MIN_DIAMETER = 12.0
"""Minimum diameter in pixels. Smaller stars are not recognisable."""

MAX_OBJECTS = 3
"""Maximum number of objects in a scene. The minimum is 1."""

MIN_VISIBLE = 0.6
"""Minimum fraction of an object's area that is neither occluded nor outside the picture."""

SUBPIXELS = 4
"""Supersampling factor in each direction, for antialiased edges."""

MAX_ATTEMPTS = 10
"""Number of random placements that are tried before an object is omitted."""

MIN_CONTRAST = 90.0
"""Minimum distance in RGB (0 to 255) between an object's colour and the mean colour beneath it, if eight random draws
reach it."""


@dataclass(frozen=True)
class SceneObject:
    """An object: its class as an index into ``CLASSES``, its visible pixels and their fraction of its area.

    ``mask`` is (size, size) bool. ``visible_fraction`` is the area of the mask divided by the area of the outline.
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
    """Return the corners of an upright shape in the unit circle, (corners, 2). The thickness of stars is random."""
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
    """Draw 1 to ``MAX_OBJECTS`` objects over a background.

    Args:
        background: Background of shape (size, size, 3), float32 from 0 to 255. It is not changed.
        front_class: Class index of the frontmost object. The classes of the other objects are random.
        generator: Random number generator.
    """
    size = background.shape[0]
    free = np.ones((size, size), bool)
    front_to_back: list[tuple[SceneObject, NDArray[np.float32]]] = []
    for number in range(int(generator.integers(1, MAX_OBJECTS + 1))):
        class_index = front_class if number == 0 else int(generator.integers(len(CLASSES)))
        for _ in range(MAX_ATTEMPTS):
            coverage, area = _place(CLASSES[class_index], size, generator)
            mask = (coverage >= 0.5) & free
            visible_fraction = min(1.0, float(mask.sum()) / area)
            if visible_fraction >= MIN_VISIBLE:
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
    """Place a shape randomly. Return the covered fraction of each pixel, (size, size), and the area of the shape."""
    smallest = max(MIN_OBJECT * size, MIN_DIAMETER)
    radius = generator.uniform(smallest, MAX_OBJECT * size) / 2
    angle = generator.uniform(0, 2 * np.pi)
    # At most a quarter of the radius may lie outside of the picture, so that the shape is recognisable.
    centre = generator.uniform(0.75 * radius, size - 0.75 * radius, size=2)
    rotation = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    corners = outline(class_name, generator) @ (radius * rotation) + centre
    x, y = corners.T
    area = abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2

    fine = np.zeros((size * SUBPIXELS, size * SUBPIXELS), np.uint8)
    fraction_bits = 4
    # OpenCV has pixel centres at integers, our coordinates have them at half-integers.
    points = np.round((corners * SUBPIXELS - 0.5) * 2**fraction_bits).astype(np.int32)
    # Fill with the number of subpixels, so that the average of a pixel is an integer, its number of covered subpixels.
    cv2.fillPoly(fine, [points], SUBPIXELS**2, shift=fraction_bits)
    covered = cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(covered / SUBPIXELS**2, np.float32), area


def _paint(image: NDArray[np.float32], coverage: NDArray[np.float32], generator: np.random.Generator) -> None:
    """Paint an object in a random colour that contrasts with the pixels beneath, with a random brightness gradient."""
    beneath = image[coverage >= 0.5].mean(axis=0)
    for _ in range(8):
        hue, saturation, value = generator.uniform((0.0, 0.3, 0.35), (1.0, 1.0, 1.0))
        colour = 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))
        if np.linalg.norm(colour - beneath) >= MIN_CONTRAST:
            break
    size = image.shape[0]
    angle, strength = generator.uniform((0.0, 0.0), (2 * np.pi, 0.35))
    along = np.linspace(-0.5, 0.5, size)
    light = 1 + strength * (np.cos(angle) * along[None, :] + np.sin(angle) * along[:, None])
    painted = np.clip(light[..., None] * colour, 0, 255).astype(np.float32)
    image += coverage[..., None] * (painted - image)
