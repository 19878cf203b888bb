"""A run of a task, trained and tested by mmseg's and mmdet's own tools.

After an interruption, ``tools/train.py --resume`` continues from the last checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, DefaultScope

from sa_layers.benchmark.machine import describe
from sa_layers.openmmlab_configs import build_model, read_config

from .ledger import Ledger, Record
from .tasks import TASKS
from .toolboxes import ToolRunner, locked, read_losses, read_scores, read_seconds

CONFIGS = Path(__file__).resolve().parents[1] / "mm_configs"
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
PACKAGES = ("onedl-mmengine", "onedl-mmcv", "onedl-mmsegmentation", "onedl-mmdetection", "onedl-mmpretrain")


class TaskRun:
    """A training of one network with one seed, and its test.

    Args:
        purpose: A key of :data:`.tasks.TASKS`.
        network: One of :data:`.tasks.NETWORKS`.
        seed: Seed of the training.
        data: Folder of the data set.
        changes: Changes of the config, as ``--cfg-options``. Defaults to none.
        weights: Checkpoint from which the backbone starts. Defaults to None, for random weights.

    Raises:
        IncompleteDataError: The data set is missing or incomplete.
    """

    def __init__(
        self,
        purpose: str,
        network: str,
        seed: int,
        data: Path,
        changes: Mapping[str, Any] | None = None,
        weights: Path | None = None,
    ) -> None:
        self.purpose, self.task, self.network, self.seed = purpose, TASKS[purpose], network, seed
        self.path = CONFIGS / self.task.config.format(network)
        self.config = read_config(self.path)
        self.config.merge_from_dict(dict(changes or {}))
        recipe = _digest(self.config.to_dict())
        self.options = {
            **(changes or {}),
            "randomness.seed": seed,
            **_locate(self.config, data),
            **_start_from(weights),
        }
        self.config.merge_from_dict(self.options)
        self.definition: Record = {
            "purpose": purpose,
            "network": network,
            "seed": seed,
            "learning_rate": self.config.optim_wrapper.optimizer.lr,
            "recipe": {"config": self.path.relative_to(CONFIGS.parent).as_posix(), "sha256": recipe},
            "data": self._fingerprint(),
            **({"weights": hashlib.sha256(weights.read_bytes()).hexdigest()} if weights else {}),
        }
        self.key = f"{purpose}-{network}-seed{seed}-{_digest(self.definition)[:8]}"

    @property
    def title(self) -> str:
        """The name of the run in messages."""
        start = ", pretrained" if "weights" in self.definition else ""
        return f"{self.purpose}, {self.network}, seed {self.seed}{start}"

    def is_that_of(self, record: Record) -> bool:
        """Whether a line of the ledger is of this run."""
        return self.definition.items() <= record.items() and ("weights" in record) == ("weights" in self.definition)

    @property
    def checkpoint(self) -> str:
        """The file name of the last checkpoint."""
        schedule = self.config.train_cfg
        return f"epoch_{schedule.max_epochs}.pth" if "max_epochs" in schedule else f"iter_{schedule.max_iters}.pth"

    def do(self, out: Path, threads: int) -> Record:
        """Train and test, or do what is left of it, and return the line of the ledger.

        Args:
            out: Folder of the work files, in which the run has a folder of its own.
            threads: Number of threads.

        Raises:
            ExperimentError: A tool failed, or another process works on this run.
        """
        folder = out / self.key
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder) as lock:
            run_tool = ToolRunner(self.task.toolbox, folder, self.title, self.options, threads, lock)
            if not _is_trained(folder, self.checkpoint):
                run_tool("train", [str(self.path), "--work-dir", str(folder), "--resume"])
            run_tool("test", [str(self.path), str(folder / self.checkpoint), "--work-dir", str(folder / "test")])
            return self._record(folder, threads)

    def _record(self, folder: Path, threads: int) -> Record:
        scores = read_scores(folder / "test")
        return self.definition | {
            "results": {
                self.task.metric: round(self.task.factor * scores[self.task.written_as], 2),
                "scores": scores,
                "losses": read_losses(folder),
                "parameters": sum(parameter.numel() for parameter in build_model(self.config).parameters()),
            },
            "measured": {
                "cpu_s": read_seconds(folder),
                "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                **{package: version(package) for package in PACKAGES},
            }
            | describe(torch.device("cpu"))
            | {"threads": threads},
        }

    def _fingerprint(self) -> str:
        """Return the first 16 digits of the SHA-256 of the files of the data set."""
        digest = hashlib.sha256()
        with DefaultScope.overwrite_default_scope(self.task.toolbox):
            for loader in LOADERS:
                dataset: Any = DATASETS.build(self.config[loader].dataset)
                for data in map(dataset.get_data_info, range(len(dataset))):
                    for kind in ("img_path", "seg_map_path", "xml_path"):
                        digest.update(Path(data[kind]).read_bytes() if kind in data else b"")
        return digest.hexdigest()[:16]


def do_runs(runs: Sequence[TaskRun], ledger: Ledger, out: Path, threads: int) -> None:
    """Do the runs that are not in the ledger, one after another, and add each to it."""
    for run in runs:
        if any(run.is_that_of(record) for record in ledger.read()):
            print(f"{run.title}: in {ledger.path} already", flush=True)
            continue
        record = run.do(out, threads)
        ledger.append(record)
        print(f"{run.title}: {run.task.metric} {record['results'][run.task.metric]}", flush=True)


def _is_trained(folder: Path, checkpoint: str) -> bool:
    """Whether the last checkpoint is there and was completed: mmengine writes its name when it is."""
    last = folder / "last_checkpoint"
    return last.exists() and Path(last.read_text().strip()).name == checkpoint


def _locate(config: Config, folder: Path) -> dict[str, str]:
    """Return the options that tell every data set of a config its folder."""
    return {
        f"{loader}.dataset.{option}": str(folder.absolute())
        for loader in LOADERS
        for option in _folder_options(config[loader].dataset)
    }


def _start_from(weights: Path | None) -> dict[str, str]:
    """Return the options that load a checkpoint into the backbone."""
    if weights is None:
        return {}
    return {"model.backbone.init_cfg.type": "Pretrained", "model.backbone.init_cfg.checkpoint": str(weights.absolute())}


def _folder_options(dataset: ConfigDict) -> Iterator[str]:
    parts = range(len(dataset.get("datasets", ())))
    yield from (f"datasets.{number}.data_root" for number in parts) if parts else ["data_root"]


def _digest(values: Record) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
