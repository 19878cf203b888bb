"""Drawn images in the layouts of the original data sets."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SPLITS = {"train": 8, "val": 2, "test": 2}
VOID = 11
CELLS = ("RBC", "WBC", "Platelets")
OBJECT = (
    "<object><name>{}</name><difficult>0</difficult>"
    "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


def draw_camvid(folder: Path, suffix: str = ".png", size: tuple[int, int] = (240, 180)) -> Path:
    """The layout of the SegNet tutorial: ``train/``, ``trainannot/`` and so on, with all classes and void."""
    generator = np.random.default_rng(0)
    for split, number in SPLITS.items():
        for kind in ("", "annot"):
            (folder / f"{split}{kind}").mkdir(parents=True)
        for index in range(number):
            coarse = generator.integers(VOID + 1, size=(3, 4), dtype=np.uint8)
            coarse.flat[: VOID + 1] = generator.permutation(VOID + 1)
            labels = cv2.resize(coarse, size, interpolation=cv2.INTER_NEAREST)
            image = cv2.applyColorMap(labels * 20, cv2.COLORMAP_JET)
            cv2.imwrite(str(folder / split / f"{index:06}{suffix}"), image)
            cv2.imwrite(str(folder / f"{split}annot" / f"{index:06}.png"), labels)
    return folder


def draw_bccd(folder: Path, size: tuple[int, int] = (640, 480)) -> Path:
    """Pascal VOC's layout: a cell of each kind in every image, and a box without area."""
    width, height = size
    names: dict[str, list[str]] = {split: [] for split in SPLITS}
    for kind in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / kind).mkdir(parents=True)
    for split, number in SPLITS.items():
        for index in range(number):
            names[split].append(name := f"{split}_{index}")
            image = np.full((height, width, 3), 220, np.uint8)
            objects = [OBJECT.format("RBC", 20, 20, 20, 20)]
            for kind, (cell, radius) in enumerate(zip(CELLS, (50, 90, 20), strict=True)):
                x, y = width * (2 * kind + 1) // 6, height // 2 + 10 * index
                cv2.circle(image, (x, y), radius, (90 * kind, 60, 200), -1)
                objects.append(OBJECT.format(cell, x - radius, y - radius, x + radius, y + radius))
            cv2.imwrite(str(folder / "JPEGImages" / f"{name}.jpg"), image)
            described = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
            text = f"<annotation>{described}{''.join(objects)}</annotation>"
            (folder / "Annotations" / f"{name}.xml").write_text(text)
        (folder / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(names[split]) + "\n")
    return folder
