"""CamVid and BCCD: the original layouts are read, and what is missing is said before training starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mmengine")
pytest.importorskip("cv2")

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from sa_layers.datasets.original import IncompleteDataError
from tests.conftest import MakeOnce

from .drawn import CELLS, SPLITS, draw_bccd, draw_camvid
from .models import need

pytestmark = pytest.mark.openmmlab

CONFIGS = Path(__file__).resolve().parents[2] / "mm_configs"
FILES = {
    "camvid": sorted((CONFIGS / "segmentation").glob("*_camvid-*.py")),
    "bccd": sorted((CONFIGS / "detection").glob("*_bccd-*.py")),
}


@pytest.fixture(scope="session")
def originals(make_once: MakeOnce) -> Path:
    """Both data sets, drawn."""

    def draw(folder: Path) -> None:
        draw_camvid(folder / "data/camvid")
        draw_bccd(folder / "data/bccd")

    return make_once("originals", draw)


def build(name: str, folder: Path, split: str = "train", **changes: Any) -> Any:
    """Build a data set of the first config of ``name``, of the drawn images unless ``changes`` say more."""
    config = Config.fromfile(FILES[name][0])
    need(config.default_scope)
    dataset = config[f"{split}_dataloader"].dataset
    for each in dataset.get("datasets", [dataset]):
        each.update({"data_root": str(folder), "images": None} | changes)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        return DATASETS.build(dataset)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_camvid(suffix: str, tmp_path: Path) -> None:
    """Images of the original are PNG; void is ignored, every other class keeps its number."""
    folder = draw_camvid(tmp_path / "camvid", suffix, size=(96, 72))
    for split, number in SPLITS.items():
        dataset = build("camvid", folder, split)
        assert len(dataset) == number
        assert dataset.get_data_info(0)["img_path"].endswith(suffix)
    assert len(dataset.metainfo["classes"]) == len(dataset.metainfo["palette"]) == 11
    labels = dataset[0]["data_samples"].gt_sem_seg.data
    assert labels.unique().tolist() == [*range(11), 255]


def test_camvid_with_fewer_classes(originals: Path) -> None:
    """``metainfo`` chooses classes, as for mmseg's own data sets: the others are ignored with void."""
    dataset = build("camvid", originals / "data/camvid", "test", metainfo={"classes": ("road", "sky")})
    labels = dataset[0]["data_samples"].gt_sem_seg.data
    assert labels.unique().tolist() == [0, 1, 255]
    assert dataset.metainfo["palette"] == [[128, 64, 128], [128, 128, 128]]


def test_bccd(originals: Path) -> None:
    """val and test are tested together; boxes without area are left out."""
    folder = originals / "data/bccd"
    assert len(build("bccd", folder)) == SPLITS["train"]
    tested = build("bccd", folder, "test")
    assert len(tested) == SPLITS["val"] + SPLITS["test"]
    assert tested.metainfo["classes"] == CELLS
    instances = tested.get_data_info(0)["instances"]
    assert [item["bbox_label"] for item in instances] == [0, 1, 2]
    assert instances[0]["bbox"] == [640 // 6 - 51, 240 - 51, 640 // 6 + 49, 240 + 49]  # from 0 instead of 1


def test_numbers_of_the_originals() -> None:
    """The configs know how many images each split has."""
    camvid, bccd = (Config.fromfile(paths[0]) for paths in FILES.values())
    assert [camvid[f"{split}_dataloader"].dataset.images for split in SPLITS] == [367, 101, 233]
    assert bccd.train_dataloader.dataset.images == 205
    assert [each.images for each in bccd.test_dataloader.dataset.datasets] == [87, 72]
    assert bccd.val_dataloader == bccd.test_dataloader


@pytest.mark.parametrize("name", FILES)
def test_equal_recipes(name: str) -> None:
    """The two configs differ in the backbone only."""
    resnet, san = (Config.fromfile(path).to_dict() for path in FILES[name])
    backbones = [config["model"].pop("backbone") for config in (resnet, san)]
    assert [backbone["type"] for backbone in backbones] == ["sa_layers.ResNet", "sa_layers.SAN"]
    assert resnet == san


BROKEN = [
    ("camvid", lambda folder: (folder / "trainannot").rename(folder / "elsewhere"), "there is no folder .*trainannot"),
    ("camvid", lambda folder: (folder / "trainannot/000003.png").unlink(), "there is no file .*trainannot/000003.png"),
    ("camvid", lambda folder: (folder / "train/000003.png").unlink(), "train has 7 images instead of 8"),
    ("bccd", lambda folder: (folder / "JPEGImages").rename(folder / "elsewhere"), "there is no folder .*JPEGImages"),
    ("bccd", lambda folder: (folder / "ImageSets/Main/train.txt").unlink(), "there is no file .*train.txt"),
    ("bccd", lambda folder: (folder / "JPEGImages/train_2.jpg").unlink(), "there is no file .*train_2.jpg"),
    (
        "bccd",
        lambda folder: [path.unlink() for path in (folder / "Annotations").glob("train_*.xml")],
        "there is no file .*train_0.xml, nor 7 more of its files",
    ),
]


@pytest.mark.parametrize(("name", "spoil", "message"), BROKEN)
def test_incomplete(name: str, spoil: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    """The message says what is missing and where the original comes from."""
    folder = (draw_camvid if name == "camvid" else draw_bccd)(tmp_path / name, size=(64, 48))
    spoil(folder)
    with pytest.raises(IncompleteDataError, match=f"{message}.*https://github.com/"):
        build(name, folder, images=8)


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(IncompleteDataError, match="CamVid is missing or incomplete: there is no folder"):
        build("camvid", tmp_path / "camvid")
