"""Writing of scenes as images, label maps, COCO annotations and classification crops."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sa_layers.datasets.classes import CLASSES
from sa_layers.datasets.manifest import MARKER
from sa_layers.datasets.scenes import Scene

CROP_CONTEXT = 1.3
"""Side of a classification crop, relative to the longer side of the object's bounding box."""

MIN_CROP_VISIBLE = 0.6
"""Minimum visible fraction of an object for a classification crop."""


class SplitWriter:
    """Writer of the scenes of one split in all formats.

    Args:
        root: Folder of the data set.
        split: ``'train'`` or ``'val'``.
        crop_size: Side of the classification crops in pixels.
    """

    def __init__(self, root: Path, split: str, crop_size: int) -> None:
        self.root, self.split, self.crop_size = root, split, crop_size
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.crops = 0
        for kind in ("images", "label_maps"):
            (root / kind / split).mkdir(parents=True)
        for name in CLASSES:
            (root / "classification" / split / name).mkdir(parents=True)
        (root / "coco").mkdir(exist_ok=True)

    def add(self, scene: Scene, photograph: str) -> None:
        """Write one scene. ``photograph`` is the file name of its background."""
        number = len(self.images)
        file_name = f"{number:06d}.png"
        height, width = scene.image.shape[:2]
        self.images.append(
            {"id": number, "file_name": file_name, "width": width, "height": height, "photograph": photograph}
        )
        _write_png(self.root / "images" / self.split / file_name, scene.image)
        _write_png(self.root / "label_maps" / self.split / file_name, scene.label_map)
        for position, item in enumerate(scene.objects):
            box = bounding_box(item.mask)
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,  # starts at 1, because COCO's evaluation treats id 0 as no match
                    "image_id": number,
                    "category_id": item.class_index + 1,
                    "bbox": list(box),
                    "area": int(item.mask.sum()),
                    "iscrowd": 0,
                    "segmentation": run_lengths(item.mask),
                    "visible_fraction": round(item.visible_fraction, 4),
                }
            )
            if item.visible_fraction >= MIN_CROP_VISIBLE:
                folder = self.root / "classification" / self.split / CLASSES[item.class_index]
                _write_png(folder / f"{number:06d}_{position}.png", square_crop(scene.image, box, self.crop_size))
                self.crops += 1

    def finish(self) -> dict[str, int]:
        """Write the COCO file and return the counts of images, objects and crops."""
        categories = [{"id": index, "name": name} for index, name in enumerate(CLASSES, start=1)]
        content = {
            "info": {"description": MARKER},  # first, so that a truncated file is still recognised
            "images": self.images,
            "annotations": self.annotations,
            "categories": categories,
        }
        path = self.root / "coco" / f"instances_{self.split}.json"
        path.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
        return {"images": len(self.images), "objects": len(self.annotations), "crops": self.crops}


def bounding_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return the bounding box of a non-empty mask as (x, y, width, height), as in COCO."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, list[int]]:
    """Encode a mask as COCO's uncompressed run lengths, in column-major order and starting with zeros.

    >>> run_lengths(np.array([[False, True], [True, True]]))
    {'size': [2, 2], 'counts': [1, 3]}
    """
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return {"size": [int(side) for side in mask.shape], "counts": [0, *counts] if flat[0] else counts}


def square_crop(image: NDArray[np.uint8], box: tuple[int, int, int, int], size: int) -> NDArray[np.uint8]:
    """Crop a square around a box (x, y, width, height), shifted to lie inside the image, and resize it to ``size``."""
    left, top, width, height = box
    limit = image.shape[0]
    side = min(limit, round(CROP_CONTEXT * max(width, height)))
    x = min(max(0, left + (width - side) // 2), limit - side)
    y = min(max(0, top + (height - side) // 2), limit - side)
    interpolation = cv2.INTER_AREA if side >= size else cv2.INTER_CUBIC
    crop = cv2.resize(image[y : y + side, x : x + side], (size, size), interpolation=interpolation)
    return np.asarray(crop, np.uint8)


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    # cv2.imwrite would return False instead of raising an error if the disk is full.
    _, content = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    path.write_bytes(content.tobytes())
