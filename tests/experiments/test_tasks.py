"""The tasks: the toolboxes' own tools train and test; a killed training is resumed, a finished run is not repeated."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("mmseg")
pytest.importorskip("mmcv._ext", exc_type=ImportError)
pytest.importorskip("mmdet")

from mmengine.runner import Runner

from experiments.errors import ExperimentError
from experiments.ledger import Ledger
from experiments.networks import make_network
from experiments.task_run import TaskRun, do_runs
from experiments.toolboxes import locked, read_losses
from sa_layers.datasets.original import IncompleteDataError
from tests.openmmlab.drawn import draw_bccd, draw_camvid

pytestmark = [pytest.mark.openmmlab, pytest.mark.slow]

# Two iterations with two small images each.
CAMVID = {
    "train_dataloader.batch_size": 2,
    "train_dataloader.dataset.images": 8,
    "val_dataloader.dataset.images": 2,
    "test_dataloader.dataset.images": 2,
    "train_cfg.max_iters": 2,
    "train_cfg.val_interval": 3,
    "default_hooks.logger.interval": 1,
}
BCCD = {
    "train_dataloader.batch_size": 2,
    "train_dataloader.dataset.images": 8,
    "train_dataloader.dataset.indices": 2,
    "val_dataloader.dataset.datasets.0.images": 2,
    "val_dataloader.dataset.datasets.1.images": 2,
    "test_dataloader.dataset.datasets.0.images": 2,
    "test_dataloader.dataset.datasets.1.images": 2,
    "train_cfg.max_epochs": 2,
    "train_cfg.val_interval": 3,
    "default_hooks.logger.interval": 1,
    "train_dataloader.dataset.pipeline.2.scale": (96, 72),
    "val_dataloader.dataset.datasets.0.pipeline.1.scale": (96, 72),
    "val_dataloader.dataset.datasets.1.pipeline.1.scale": (96, 72),
    "test_dataloader.dataset.datasets.0.pipeline.1.scale": (96, 72),
    "test_dataloader.dataset.datasets.1.pipeline.1.scale": (96, 72),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    draw_camvid(folder / "camvid", size=(120, 90))
    draw_bccd(folder / "bccd")
    return folder


def kill_after(checkpoint: Path) -> None:
    """SIGKILL the tool that writes a checkpoint as soon as the next is being waited for."""
    while not (checkpoint.exists() and (checkpoint.parent / "last_checkpoint").exists()):
        time.sleep(0.01)
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    for child in {int(number) for path in children for number in path.read_text().split()}:
        if b"train.py" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(child, signal.SIGKILL)


def test_killed_and_resumed(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """mmdet, killed by SIGKILL, goes on from the last checkpoint. A run that is in the ledger is not repeated."""
    ledger, out = Ledger(tmp_path / "ledger.jsonl"), tmp_path / "work"
    run = TaskRun("bccd", "resnet26", 3, data / "bccd", BCCD)
    thread = threading.Thread(target=kill_after, args=[out / run.key / "epoch_1.pth"])
    thread.start()
    with pytest.raises(ExperimentError, match=r"train\.py failed with exit code -9; see .*train\.log"):
        do_runs([run], ledger, out, threads=1)
    thread.join()
    assert ledger.read() == []
    for _ in range(2):
        do_runs([run], ledger, out, threads=1)
    assert f"in {ledger.path} already" in capsys.readouterr().out
    (record,) = ledger.read()
    assert "resumed epoch: 1, iter: 1" in (out / run.key / "train.log").read_text()
    assert run.definition.items() <= record.items()
    assert record["learning_rate"] == 2e-3
    assert len(record["results"]["losses"]) == 2
    assert 0 <= record["results"]["mAP50"] <= 100
    assert record["results"]["parameters"] > 5e6
    assert set(record["measured"]["cpu_s"]) == {"train", "test"}


def test_camvid(data: Path, tmp_path: Path) -> None:
    """mmseg trains two iterations, from saved weights. A folder that another process works in is left alone."""
    torch.save(make_network("san10-patchwise", 10, seed=5).state_dict(), weights := tmp_path / "weights.pth")
    run = TaskRun("camvid", "san10-patchwise", 0, data / "camvid", CAMVID, weights)
    with locked(tmp_path):
        (out := tmp_path / "out").mkdir()
        (out / run.key).symlink_to(tmp_path)
        with pytest.raises(ExperimentError, match="another process works in"):
            run.do(out, threads=1)
    run.config.work_dir = str(tmp_path)
    Runner.from_cfg(run.config).train()
    (log,) = tmp_path.glob("*/*.log")
    assert f"load model from: {weights}" in log.read_text()
    assert len(read_losses(tmp_path)) == 2
    assert (tmp_path / run.checkpoint).stat().st_size > 20e6


def test_definition(data: Path, tmp_path: Path) -> None:
    """Runs differ by network, seed, recipe and images, but not by the place of the images."""
    (tmp_path / "link").symlink_to(data / "camvid")
    draw_camvid(tmp_path / "other", size=(60, 45))
    run = TaskRun("camvid", "resnet26", 0, data / "camvid", CAMVID)
    assert TaskRun("camvid", "resnet26", 0, tmp_path / "link", CAMVID).key == run.key
    others = [
        TaskRun("camvid", "san10-patchwise", 0, data / "camvid", CAMVID),
        TaskRun("camvid", "resnet26", 1, data / "camvid", CAMVID),
        TaskRun("camvid", "resnet26", 0, data / "camvid", CAMVID | {"train_cfg.max_iters": 3}),
        TaskRun("camvid", "resnet26", 0, tmp_path / "other", CAMVID),
    ]
    (tmp_path / "weights.pth").write_bytes(b"weights")
    pretrained = TaskRun("camvid", "resnet26", 0, data / "camvid", CAMVID, tmp_path / "weights.pth")
    assert len({each.key for each in [run, pretrained, *others]}) == 6
    assert pretrained.title == "camvid, resnet26, seed 0, pretrained"
    for one, other in ((run, pretrained), (pretrained, run)):
        assert one.is_that_of(one.definition)
        assert not one.is_that_of(other.definition)


def test_missing_data(tmp_path: Path) -> None:
    """Said before any tool is started."""
    with pytest.raises(IncompleteDataError, match="BCCD is missing or incomplete"):
        TaskRun("bccd", "resnet26", 0, tmp_path)


def test_losses_of_a_resumed_training(tmp_path: Path) -> None:
    """Of a step that was repeated, the last loss counts; validations have none."""
    lines = {
        "1": '{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 9.0}\n{"step": 2, "mIoU": 50.0}\n',
        "2": '{"step": 2, "loss": 2.0}\n',
    }
    for name, text in lines.items():
        (tmp_path / name / "vis_data").mkdir(parents=True)
        (tmp_path / name / "vis_data/scalars.json").write_text(text)
    assert read_losses(tmp_path) == [3.0, 2.0]
