"""Label maps, COCO masks and boxes, and classification crops are consistent with each other."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage

from sa_layers.datasets import CLASSES, LABELS, PALETTE, ShapesFolder
from sa_layers.datasets.photographs import PHOTOGRAPHS, SPLIT_COLUMNS, load_photographs
from sa_layers.datasets.scenes import MAX_OBJECTS, MIN_VISIBLE
from sa_layers.datasets.split_writer import MIN_CROP_VISIBLE, bounding_box, run_lengths, square_crop

SPLITS = ("train", "val")


def coco_of(shapes: ShapesFolder, split: str) -> dict[str, Any]:
    return json.loads((shapes.path / "coco" / f"instances_{split}.json").read_text())


def decode(segmentation: dict[str, Any]) -> np.ndarray:
    """Decode uncompressed run lengths, following COCO's definition rather than inverting our encoder."""
    height, width = segmentation["size"]
    values = [index % 2 for index, count in enumerate(segmentation["counts"]) for _ in range(count)]
    return np.array(values, bool).reshape(width, height).T


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("split", SPLITS)
class TestSplit:
    def test_images_and_label_maps_have_the_documented_shape(self, shapes: ShapesFolder, split: str) -> None:
        size = shapes.arguments.size
        names = [f"{number:06d}.png" for number in range(getattr(shapes.arguments, split))]
        for face, shape in (("images", (size, size, 3)), ("label_maps", (size, size))):
            paths = sorted((shapes.path / face / split).iterdir())
            assert [path.name for path in paths] == names
            for path in paths:
                pixels = read(path)
                assert pixels.shape == shape
                assert pixels.dtype == np.uint8

    def test_label_map_is_the_union_of_the_masks(self, shapes: ShapesFolder, split: str) -> None:
        coco = coco_of(shapes, split)
        for image in coco["images"]:
            labels = np.zeros((image["height"], image["width"]), np.uint8)
            owners = np.zeros_like(labels)
            for annotation in coco["annotations"]:
                if annotation["image_id"] == image["id"]:
                    mask = decode(annotation["segmentation"])
                    labels[mask] = annotation["category_id"]
                    owners += mask
            assert owners.max() == 1, "visible masks must not overlap"
            np.testing.assert_array_equal(labels, read(shapes.path / "label_maps" / split / image["file_name"]))

    def test_boxes_are_tight_and_areas_exact(self, shapes: ShapesFolder, split: str) -> None:
        for annotation in coco_of(shapes, split)["annotations"]:
            mask = decode(annotation["segmentation"])
            x, y, width, height = annotation["bbox"]
            assert annotation["area"] == mask.sum() == mask[y : y + height, x : x + width].sum()
            box = mask[y : y + height, x : x + width]
            assert all(edge.any() for edge in (box[0], box[-1], box[:, 0], box[:, -1]))
            assert annotation["iscrowd"] == 0
            assert annotation["visible_fraction"] >= MIN_VISIBLE

    def test_ids_and_categories(self, shapes: ShapesFolder, split: str) -> None:
        coco = coco_of(shapes, split)
        assert coco["categories"] == [{"id": index + 1, "name": name} for index, name in enumerate(CLASSES)]
        ids = [annotation["id"] for annotation in coco["annotations"]]
        assert len(set(ids)) == len(ids) == shapes.counts[split]["objects"]
        assert 0 not in ids
        each = np.bincount([a["image_id"] for a in coco["annotations"]], minlength=len(coco["images"]))
        assert each.min() >= 1
        assert 1 < each.max() <= MAX_OBJECTS

    def test_each_mostly_visible_object_has_one_crop(self, shapes: ShapesFolder, split: str) -> None:
        wanted = dict.fromkeys(CLASSES, 0)
        for annotation in coco_of(shapes, split)["annotations"]:
            # The rounded fraction is on file; none of this data set lies that near the threshold.
            assert abs(annotation["visible_fraction"] - MIN_CROP_VISIBLE) > 1e-4
            wanted[CLASSES[annotation["category_id"] - 1]] += annotation["visible_fraction"] >= MIN_CROP_VISIBLE
        folder = shapes.path / "classification" / split
        crops = {path.name: list(path.iterdir()) for path in folder.iterdir()}
        assert {name: len(paths) for name, paths in crops.items()} == wanted
        assert min(wanted.values()) >= 1
        assert sum(wanted.values()) == shapes.counts[split]["crops"]
        side = shapes.arguments.crop_size
        assert all(read(path).shape == (side, side, 3) for paths in crops.values() for path in paths)

    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
    def test_annotations_load_in_pycocotools(self, shapes: ShapesFolder, split: str) -> None:
        coco_module = pytest.importorskip("pycocotools.coco")
        coco = coco_module.COCO(str(shapes.path / "coco" / f"instances_{split}.json"))
        for annotation in coco.loadAnns(coco.getAnnIds()):
            np.testing.assert_array_equal(coco.annToMask(annotation).astype(bool), decode(annotation["segmentation"]))


def test_crops_show_their_object_in_the_middle(shapes: ShapesFolder) -> None:
    """Label maps cropped like the images have mostly the folder's class, above all in the middle."""
    right = total = 0
    for split in SPLITS:
        places: dict[int, int] = {}
        for annotation in coco_of(shapes, split)["annotations"]:
            number = annotation["image_id"]
            places[number] = places.get(number, -1) + 1
            name = CLASSES[annotation["category_id"] - 1]
            path = shapes.path / "classification" / split / name / f"{number:06d}_{places[number]}.png"
            assert path.exists() == (annotation["visible_fraction"] >= MIN_CROP_VISIBLE)
            if path.exists():
                labels = read(shapes.path / "label_maps" / split / f"{number:06d}.png")
                middle = square_crop(labels, tuple(annotation["bbox"]), labels.shape[0])[16:-16, 16:-16]
                right += (
                    np.bincount(middle.ravel(), minlength=len(LABELS))[1:].argmax() + 1 == annotation["category_id"]
                )
                total += 1
    assert right / total > 0.85


def test_train_and_val_share_no_pixel_of_a_photograph(shapes: ShapesFolder) -> None:
    parts = [{photograph.name: photograph.pixels for photograph in load_photographs(split)} for split in SPLITS]
    (_, end), (start, _) = (SPLIT_COLUMNS[split] for split in SPLITS)
    assert end <= start
    for name in PHOTOGRAPHS:
        whole = cv2.imread(str(Path(skimage.__file__).parent / "data" / name)).shape[1]
        assert sum(part[name].shape[1] for part in parts) == pytest.approx(whole, abs=1)
    for split in SPLITS:
        used = {image["photograph"] for image in coco_of(shapes, split)["images"]}
        assert used <= set(shapes.photographs[split]) == set(PHOTOGRAPHS)
        assert len(used) > 1


def test_colours_do_not_reveal_the_class(shapes: ShapesFolder) -> None:
    """A nearest-mean classifier of colours has low accuracy even on its training data."""
    colours, classes = [], []
    for annotation in coco_of(shapes, "train")["annotations"]:
        image = read(shapes.path / "images" / "train" / f"{annotation['image_id']:06d}.png")
        colours.append(image[decode(annotation["segmentation"])].mean(axis=0))
        classes.append(annotation["category_id"])
    colour, target = np.array(colours), np.array(classes)
    means = np.stack([colour[target == index + 1].mean(axis=0) for index in range(len(CLASSES))])
    guess = np.linalg.norm(colour[:, None] - means, axis=2).argmin(axis=1) + 1
    assert (guess == target).mean() < 0.45


def test_labels_and_palette_match() -> None:
    assert ("background", *CLASSES) == LABELS
    assert len(set(PALETTE)) == len(LABELS)
    assert all(0 <= channel <= 255 for colour in PALETTE for channel in colour)


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_are_exact(seed: int) -> None:
    mask = np.random.default_rng(seed).random((7, 5)) < (0.0, 0.2, 0.5, 0.8, 1.1)[seed]
    np.testing.assert_array_equal(decode(run_lengths(mask)), mask)


def test_bounding_box_of_one_pixel() -> None:
    mask = np.zeros((6, 8), bool)
    mask[2, 5] = True
    assert bounding_box(mask) == (5, 2, 1, 1)


@pytest.mark.parametrize("box", [(0, 0, 10, 10), (54, 54, 10, 10), (0, 20, 64, 10), (30, 0, 3, 64)])
def test_square_crops_stay_inside_the_image(box: tuple[int, int, int, int]) -> None:
    assert square_crop(np.zeros((64, 64, 3), np.uint8), box, 20).shape == (20, 20, 3)
