"""Batched crops are torchvision's crops of every single image, and are drawn with its distribution."""

from __future__ import annotations

import pytest
import torch
from torch import Generator
from torchvision.transforms import v2

from experiments.augmentation import Crops, crop, draw_crops
from experiments.views import crop_centre


def random_images(count: int, size: int = 96) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=Generator().manual_seed(1))


@pytest.mark.parametrize("size", [32, 64, 96])
def test_crops_are_torchvisions(size: int) -> None:
    pixels, crops = random_images(40), draw_crops(40, 96, Generator().manual_seed(2))
    assert 5 < crops.flipped.sum() < 35
    for image, result, *box, flipped in zip(pixels, crop(pixels, crops, size), *crops, strict=True):
        expected = v2.functional.resized_crop(image.float() / 255, *map(int, box), [size, size], antialias=True)
        torch.testing.assert_close(result, expected.flip(-1) if flipped else expected, rtol=0, atol=2e-5)


def test_distribution_is_torchvisions() -> None:
    crops = draw_crops(4000, 96, Generator().manual_seed(3))
    torch.manual_seed(3)
    drawn = v2.RandomResizedCrop(64)
    boxes = [drawn.make_params([torch.empty(3, 96, 96)]) for _ in range(4000)]
    for name in ("top", "left", "height", "width"):
        ours, theirs = getattr(crops, name).float(), torch.tensor([box[name] for box in boxes]).float()
        assert abs(ours.mean() - theirs.mean()) < 1.5, name
        assert abs(ours.std() - theirs.std()) < 1.5, name


def test_crops_of_a_part_are_those_of_the_whole() -> None:
    pixels, crops = random_images(8), draw_crops(8, 96, Generator().manual_seed(4))
    chosen = torch.tensor([5, 2])
    assert torch.equal(crop(pixels[chosen], crops.take(chosen), 64), crop(pixels, crops, 64)[chosen])


def test_nothing_is_taken_from_outside_of_the_box() -> None:
    pixels = torch.zeros(1, 3, 96, 96, dtype=torch.uint8)
    pixels[..., 30:50, 20:70] = 255
    box = Crops(*torch.tensor([[30], [20], [20], [50], [0]]))
    assert crop(pixels, box, 64).min() == pytest.approx(1)


def test_centre() -> None:
    """Of 96 pixels 84, which is the share of 224 in 256."""
    pixels = torch.zeros(1, 3, 96, 96, dtype=torch.uint8)
    pixels[..., 6:90, 6:90] = 255
    assert crop_centre(pixels, 64).unique().tolist() == [255]
    pixels[..., 6, :] = 0
    assert crop_centre(pixels, 64)[..., 0, :].max() < 255
