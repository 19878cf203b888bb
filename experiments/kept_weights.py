"""The weights that finished runs have saved: found by the ledger, checked, loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import nn

from sa_layers.checkpoints import load_checkpoint, read_state_dict

from .errors import ExperimentError
from .imagenette import CLASSES
from .ledger import Record
from .measures import accuracy
from .networks import NETWORKS, make_network
from .plan import RESULT, Run, find, resolve


def file_name(recipe: str, network: str, seed: int, digest: str) -> str:
    """Return the name of a file of weights, which ends with the first eight digits of its SHA-256, as in torch.hub.

    Example:
        >>> file_name("two-core", "resnet26", 0, "0123456789abcdef")
        'two-core-resnet26-seed0-01234567.pth'
    """
    return f"{recipe}-{network}-seed{seed}-{digest[:8]}.pth"


class KeptWeights(NamedTuple):
    """The weights of a finished run."""

    run: Run
    """The run."""
    record: Record
    """The line of the run in the ledger."""
    path: Path
    """The file of the weights."""

    @property
    def digest(self) -> str:
        """The SHA-256 of the file, by the ledger."""
        return self.record["results"]["weights"]

    @property
    def origin(self) -> Record:
        """What a line of the ledger on these weights says of them."""
        return {"network": self.run.network, "seed": self.run.seed, "weights": self.digest}

    def load(self) -> nn.Module:
        """Return the network with these weights, in evaluation mode.

        Raises:
            ExperimentError: The file is not that of the ledger.
        """
        check_file(self.path, self.digest)
        network = make_network(self.run.network, len(CLASSES), seed=0)
        if "blocks" in NETWORKS[self.run.network].options:
            network.load_state_dict(read_state_dict(self.path))
        else:
            load_checkpoint(network, self.path)
        return network.eval()


def find_kept(runs: Iterable[Run], records: Sequence[Record], data: str, out: Path) -> list[KeptWeights]:
    """Return the weights that the finished ones of some runs have saved, and print which files are missing.

    Args:
        runs: Runs of a suite.
        records: Lines of the ledger.
        data: Fingerprint of the images.
        out: Folder of the work files, with the folder ``weights``.

    Raises:
        ExperimentError: There are none.
    """
    kept = []
    for run in runs:
        resolved = resolve(run, records, data) if run.purpose == RESULT else None
        record = find(resolved, records, data) if resolved else None
        if resolved is None or record is None:
            continue
        found = KeptWeights(resolved, record, path_of(record, out))
        if found.path.exists():
            kept.append(found)
        else:
            print(f"{run.title}: there is no file {found.path}", flush=True)
    if not kept:
        raise ExperimentError(
            f"{out / 'weights'} has no weights of a finished run on these images: python -m experiments run makes them"
        )
    return kept


def find_best(network: str, records: Iterable[Record], out: Path) -> Path:
    """Return the weights of the most accurate finished run of a network.

    Args:
        network: Name of the network.
        records: Lines of the ledger.
        out: Folder of the work files, with the folder ``weights``.

    Raises:
        ExperimentError: The folder has none of a finished run, or the file is not that of the ledger.
    """
    found = {
        path: record
        for record in records
        if (record["purpose"], record["network"]) == (RESULT, network) and (path := path_of(record, out)).exists()
    }
    if not found:
        raise ExperimentError(
            f"{out / 'weights'} has no weights of a finished run of {NETWORKS[network].title}: python -m experiments "
            "run makes them"
        )
    best = max(found, key=lambda path: accuracy(found[path]))
    check_file(best, found[best]["results"]["weights"])
    return best


def path_of(run: Record, out: Path) -> Path:
    """Return the path of the weights of a run, by its line of the ledger."""
    name = file_name(run["recipe"]["name"], run["network"], run["seed"], run["results"]["weights"])
    return out / "weights" / name


def check_file(path: Path, digest: str) -> None:
    """Check that a file of weights is that of the ledger.

    Raises:
        ExperimentError: It has another SHA-256.
    """
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise ExperimentError(f"the SHA-256 of {path} is not that of the ledger, {digest}")
