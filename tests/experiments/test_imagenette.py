"""Imagenette's folder is found in every layout in which it comes, and refused if it is not whole."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.errors import DataError
from experiments.imagenette import CLASSES, ImageFolder, decode_image

PHOTOGRAPHS = Path(__file__).resolve().parents[2] / "data"  # where python -m experiments looks for them, too


@pytest.mark.parametrize("above", ["", "imagenette2-160", "imagenette-96px"])
def test_layouts(drawn: Path, tmp_path: Path, above: str) -> None:
    shutil.copytree(drawn, tmp_path / above, dirs_exist_ok=True)
    folder = ImageFolder(tmp_path, size=96, complete=False)
    assert len(folder.train) == len(folder.val) == 60
    assert folder.train.labels.tolist() == sorted(6 * list(range(10)))
    assert folder.train.pixels.shape == (60, 3, 96, 96)
    assert folder.fingerprint == ImageFolder(drawn, size=96, complete=False).fingerprint


def test_fingerprint_depends_on_pixels_and_classes(drawn: Path, tmp_path: Path) -> None:
    before = ImageFolder(drawn, size=96, complete=False).fingerprint
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    first, second = (tmp_path / "train" / name / "0.png" for name in list(CLASSES)[:2])
    first.rename(tmp_path / "exchanged.png")
    second.rename(first)
    (tmp_path / "exchanged.png").rename(second)
    assert ImageFolder(tmp_path, size=96, complete=False).fingerprint != before


def test_archive(drawn: Path, tmp_path: Path) -> None:
    archive = tmp_path / "imagenette2-160.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(drawn / "val", "imagenette2-160/val")
    with pytest.raises(DataError, match=r"unpack it: tar xf .*imagenette2-160\.tgz"):
        ImageFolder(archive, size=96)


def test_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"there is no folder .*nowhere\. It should hold Imagenette: torchvision.datasets"
    ):
        ImageFolder(tmp_path / "nowhere", size=96)
    with pytest.raises(DataError, match="holds neither train/ nor val/"):
        ImageFolder(tmp_path, size=96)


def test_incomplete_folders(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train/n01440764 has 6 of 963 images\. Unpack it again"):
        ImageFolder(drawn, size=96)
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "val" / "n03888257")
    with pytest.raises(DataError, match="val/n03888257 has 0 of 1 images"):
        ImageFolder(tmp_path, size=96, complete=False)


def test_half_an_image(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    broken = tmp_path / "val" / "n03888257" / "0.png"
    broken.write_bytes(broken.read_bytes()[:500])
    with pytest.raises(DataError, match=r"0\.png is not a whole image"):
        _ = ImageFolder(tmp_path, size=96, complete=False).val


@pytest.mark.parametrize("shape", [(160, 240), (240, 160), (30, 40), (96, 97)])
def test_scaling_and_cropping(tmp_path: Path, shape: tuple[int, int]) -> None:
    """The centre of an image of any shape, greyscale too: the left half is dark, the right half bright."""
    values = np.zeros(shape, dtype=np.uint8)
    values[:, shape[1] // 2 :] = 200
    Image.fromarray(values).save(tmp_path / "image.JPEG", quality=95)
    decoded = decode_image(tmp_path / "image.JPEG", 96)
    assert decoded.shape == (3, 96, 96)
    assert decoded.dtype == torch.uint8
    assert decoded[:, :, :40].max() < 20
    assert decoded[:, :, 56:].min() > 180


def test_photographs() -> None:
    """The real ones, where they are unpacked."""
    if not (PHOTOGRAPHS / "imagenette-96px").is_dir():
        pytest.skip(f"no photographs: unpack Imagenette below {PHOTOGRAPHS} to test them")
    folder = ImageFolder(PHOTOGRAPHS, size=96)
    assert [len(folder._paths[split]) for split in ("train", "val")] == [9469, 3925]
