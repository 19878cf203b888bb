"""One run, from random parameters to its line of the ledger, in parts that are not repeated after an interruption."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision

from sa_layers.benchmark.machine import describe
from sa_layers.output_file import make_parent, output_file

from .evaluation import QUARTERS, count_correct, describe_attacked, measure_attack, settings
from .imagenette import CLASSES
from .kept_weights import file_name
from .networks import Normalized, cost, make_network
from .plan import SEARCH, Record, Run
from .training import Training
from .views import Views, first_of_each_class


class Part(NamedTuple):
    """A part of a run, after which it can be interrupted."""

    kind: str
    """'epoch', 'test' or 'attack': parts of a kind take about the same time."""
    title: str
    do: Callable[[], object]


class RunInProgress:
    """A run in progress: what is done, and what remains.

    Args:
        run: The run; its learning rate must be known.
        views: The images.
        folder: Folder of the states of unfinished runs and of the trained weights.
        device: Where to compute.
        on_step: Called after every step of the training.
    """

    def __init__(
        self, run: Run, views: Views, folder: Path, device: torch.device, on_step: Callable[[], None] = lambda: None
    ) -> None:
        self.run, self.views, self.device, self.on_step = run, views, device, on_step
        self.key = run.key(views.fingerprint)
        self.state, self.weights = folder / "runs" / self.key, folder / "weights"
        self.network = Normalized(make_network(run.network, len(CLASSES), run.seed)).to(device)
        self.training = Training(run, self.network, views.training(run), self.state / "training.pt")
        self.measurements: dict[str, Any] = {}
        if self.training.finished and self._file.exists():
            self.measurements = json.loads(self._file.read_text())

    def parts(self) -> Iterator[Part]:
        """Yield what remains to be done, part by part. Each has to be done before the next."""
        while not self.training.finished:
            title = f"epoch {len(self.training.losses) + 1} of {self.run.epochs}"
            yield Part("epoch", title, lambda: self.training.train_epoch(self.on_step))
        self.network.eval()
        for degrees in (0,) if self.run.purpose == SEARCH else QUARTERS:
            if f"correct {degrees}" not in self.measurements:
                title = f"rotated by {degrees} degrees" if degrees else "test"
                yield Part("test", title, partial(self._test, degrees))
        for epsilon, size in settings(self.run.recipe) if self.run.purpose != SEARCH else ():
            if f"attack {epsilon} {size}" not in self.measurements:
                title = f"attack within {epsilon}/255 by steps of {size:g}/255"
                yield Part("attack", title, partial(self._attack, epsilon, size))

    def record(self) -> Record:
        """Return the line of the ledger of a finished run, and save its weights."""
        measured = self.measurements
        images = self.views.tested(self.run.purpose, self.run.recipe)
        results: Record = {
            "losses": self.training.losses,
            "images": len(images),
            "correct": {
                str(degrees): measured[f"correct {degrees}"] for degrees in QUARTERS if f"correct {degrees}" in measured
            },
        }
        if self.run.purpose != SEARCH:
            results |= cost(self.run.network, len(CLASSES), self.run.recipe.image_size)
            rows = [row for epsilon, size in settings(self.run.recipe) for row in measured[f"attack {epsilon} {size}"]]
            rows.sort(key=lambda row: (row["epsilon"], row["steps"]))
            results["attack"] = describe_attacked(self.network, self._attacked()) | {"settings": rows}
            results["weights"] = self._save_weights()
        return self.run.definition(self.views.fingerprint) | {
            "results": results,
            "measured": {
                "training_s": round(self.training.seconds, 1),
                "test_s": round(measured["seconds"], 1),
                "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "torchvision": torchvision.__version__,
            }
            | describe(self.device),
        }

    def discard_state(self) -> None:
        """Delete the state, which is not needed once the run is in the ledger."""
        shutil.rmtree(self.state, ignore_errors=True)

    @property
    def _file(self) -> Path:
        return self.state / "measurements.json"

    def _attacked(self) -> Any:
        return first_of_each_class(
            self.views.tested(self.run.purpose, self.run.recipe), self.run.recipe.attacked_per_class
        )

    def _test(self, degrees: int) -> None:
        begin = time.perf_counter()
        images = self.views.tested(self.run.purpose, self.run.recipe)
        self._keep(begin, f"correct {degrees}", count_correct(self.network, images, degrees))

    def _attack(self, epsilon: int, size: float) -> None:
        begin = time.perf_counter()
        steps = settings(self.run.recipe)[epsilon, size]
        rows = list(measure_attack(self.network, self._attacked(), epsilon, size, steps))
        self._keep(begin, f"attack {epsilon} {size}", rows)

    def _keep(self, begin: float, name: str, value: object) -> None:
        """Save a measurement, so that it is not made again after an interruption."""
        self.measurements[name] = value
        self.measurements["seconds"] = self.measurements.get("seconds", 0.0) + time.perf_counter() - begin
        make_parent(self._file)
        with output_file(self._file) as unfinished:
            unfinished.write_text(json.dumps(self.measurements))

    def _save_weights(self) -> str:
        """Save the network, without the normalisation of images, and return the SHA-256 of the file."""
        state = {name: values.cpu().contiguous() for name, values in self.network.network.state_dict().items()}
        make_parent(self.weights / self.key)
        with tempfile.TemporaryDirectory(dir=self.weights) as folder:
            saved = Path(folder, "weights.pth")  # torch writes the name of the file into it
            torch.save(state, saved)
            digest = hashlib.sha256(saved.read_bytes()).hexdigest()
            saved.replace(self.weights / file_name(self.run.recipe.name, self.run.network, self.run.seed, digest))
        return digest
