"""Every config builds its model, and its data set says the same as the data set itself."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("mmengine")

from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope

from sa_layers.backbones import SAN
from sa_layers.datasets import CLASSES, LABELS, PALETTE

pytestmark = pytest.mark.openmmlab

CONFIGS = Path(__file__).resolve().parents[2] / "mm_configs"
FILES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.py") if "_base_" not in path.parts)


def test_every_task_has_a_config() -> None:
    """Else the tests below would pass with nothing to test."""
    assert {name.split("/")[0] for name in FILES} == {"classification", "detection", "segmentation"}


@pytest.mark.parametrize("name", FILES)
def test_builds(name: str) -> None:
    """In its own scope, without an import of ours, with our backbone."""
    config = Config.fromfile(CONFIGS / name)
    assert "custom_imports" not in config
    assert config.model.backbone.type == "sa_layers.SAN"
    scope = config.default_scope
    if scope == "mmdet":
        pytest.importorskip("mmcv._ext", exc_type=ImportError)
    pytest.importorskip(scope)
    preprocessor = config.get("data_preprocessor")
    if preprocessor is not None and "data_preprocessor" not in config.model:
        config.model.data_preprocessor = preprocessor
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(config.model)
    assert isinstance(model.backbone, SAN)


@pytest.mark.parametrize("name", [name for name in FILES if "shapes" in name])
def test_shapes_configs_name_the_classes(name: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names and colours, in the order in which the toolbox numbers what it reads."""
    monkeypatch.chdir(workspace)
    config = Config.fromfile(CONFIGS / name)
    if config.default_scope == "mmdet":
        pytest.importorskip("mmcv._ext", exc_type=ImportError)
    pytest.importorskip(config.default_scope)
    for split in ("train", "val"):
        with DefaultScope.overwrite_default_scope(config.default_scope):
            dataset = DATASETS.build(config[f"{split}_dataloader"].dataset)
        assert len(dataset) >= 5
        classes = dataset.metainfo["classes"]
        if config.default_scope == "mmpretrain":
            assert sorted(classes) == sorted(CLASSES)
            for index in range(len(dataset)):
                sample = dataset.get_data_info(index)
                assert classes[sample["gt_label"]] == Path(sample["img_path"]).parent.name
            assert config.model.head.num_classes == len(CLASSES)
        elif config.default_scope == "mmdet":
            assert tuple(classes) == CLASSES
            assert [tuple(colour) for colour in dataset.metainfo["palette"]] == list(PALETTE[1:])
            assert {item["bbox_label"] for i in range(len(dataset)) for item in dataset.get_data_info(i)["instances"]}
            assert config.model.roi_head.bbox_head.num_classes == len(CLASSES)
        else:
            assert tuple(classes) == LABELS
            assert [tuple(colour) for colour in dataset.metainfo["palette"]] == list(PALETTE)
            assert config.model.decode_head.num_classes == len(LABELS)
