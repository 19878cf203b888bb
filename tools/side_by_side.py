"""Pictures of an image, its ground truth and its predicted segmentation, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
PANEL = 256  # width and height of each of the three panels, in pixels
MARGIN = 8


def side_by_side(
    image: Image, truth: Image, prediction: Image, labels: Sequence[str], palette: Sequence[Sequence[int]]
) -> Image:
    """Draw three captioned panels in a row, above a legend of the labels.

    Args:
        image: Image of shape (H, W, 3) in BGR order.
        truth: Ground-truth label map of shape (H, W).
        prediction: Predicted label map of any size.
        labels: Name of each label.
        palette: RGB colour of each label.

    Returns:
        The picture in BGR order.
    """
    bgr = np.array(palette, dtype=np.uint8)[:, ::-1]
    photograph = cv2.resize(image, (PANEL, PANEL), interpolation=cv2.INTER_CUBIC)
    panels = [photograph, _overlay(photograph, truth, bgr), _overlay(photograph, prediction, bgr)]
    captioned = [
        _caption(panel, text) for panel, text in zip(panels, ("image", "ground truth", "prediction"), strict=True)
    ]
    row = np.hstack(captioned)
    return np.vstack([row, _legend(labels, bgr, row.shape[1])])


def write_pictures(
    folder: Path,
    images: Sequence[Path],
    truths: Path,
    predictions: Path,
    labels: Sequence[str],
    palette: Sequence[Sequence[int]],
) -> None:
    """Write one picture for each image, and overview.png with the first eight pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for path in images:
        truth = _read(truths / path.name, cv2.IMREAD_GRAYSCALE)
        prediction = _read(predictions / path.name, cv2.IMREAD_GRAYSCALE)
        pictures.append(side_by_side(_read(path, cv2.IMREAD_COLOR), truth, prediction, labels, palette))
        cv2.imwrite(str(folder / path.name), pictures[-1])
    tiles = pictures[:8]
    columns = [np.vstack(tiles[start::2][: len(tiles) // 2]) for start in (0, 1)]
    cv2.imwrite(str(folder / "overview.png"), np.hstack(columns))


def _read(path: Path, flags: int) -> Image:
    image = cv2.imread(str(path), flags)
    if image is None:
        raise FileNotFoundError(f"{path} is missing or is not an image")
    return image.astype(np.uint8, copy=False)


def _overlay(photograph: Image, label_map: Image, bgr: Image) -> Image:
    """Paint the objects in the legend's colours over the photograph, which is blended with the background colour."""
    label_map = cv2.resize(label_map, (PANEL, PANEL), interpolation=cv2.INTER_NEAREST)
    faded = cv2.addWeighted(photograph, 0.3, bgr[np.zeros_like(label_map)], 0.7, 0)
    return np.where(label_map[..., None] > 0, bgr[label_map], faded)


def _caption(panel: Image, text: str) -> Image:
    framed = cv2.copyMakeBorder(panel, 28, 0, MARGIN, MARGIN, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    return cv2.putText(framed, text, (MARGIN, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)


def _legend(labels: Sequence[str], bgr: Image, width: int) -> Image:
    legend = np.full((36, width, 3), 255, np.uint8)
    step = width // len(labels)
    for index, label in enumerate(labels):
        left = index * step + MARGIN
        cv2.rectangle(legend, (left, 10), (left + 14, 24), bgr[index].tolist(), -1)
        cv2.putText(legend, label, (left + 20, 21), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (40, 40, 40), 1, cv2.LINE_AA)
    return legend
