"""The measures that the page shows for a recipe: a number for each seed of each network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from statistics import fmean
from typing import Any

from .errors import LedgerError
from .evaluation import QUARTERS
from .ledger import Record
from .plan import RESULT, SEARCH

BySeed = dict[int, float]
Measure = Callable[[Record], float]


class Results:
    """The finished runs of a recipe.

    Args:
        records: Lines of the ledger.
        recipe: Name of the recipe.

    Raises:
        LedgerError: Runs of this recipe differ in the recipe or in the images, so they cannot be compared.
    """

    def __init__(self, records: Iterable[Record], recipe: str) -> None:
        own = [record for record in records if record.get("recipe", {}).get("name") == recipe]
        for name in ("recipe", "data"):
            values = {str(record[name]) for record in own}
            if len(values) > 1:
                raise LedgerError(f"the runs of recipe {recipe} differ in {name!r}: {'; '.join(sorted(values))}")
        self.recipe: dict[str, Any] = own[0]["recipe"] if own else {"name": recipe}
        self.data: str | None = own[0]["data"] if own else None
        self.machines = list(dict.fromkeys(_machine(record) for record in own))
        self.searches = [record for record in own if record["purpose"] == SEARCH]
        self.runs: dict[str, dict[int, Record]] = defaultdict(dict)
        for record in own:
            if record["purpose"] == RESULT:
                self.runs[record["network"]][record["seed"]] = record

    def of(self, network: str, measure: Measure) -> BySeed:
        """Return a measure of a network for each of its seeds."""
        return {seed: measure(record) for seed, record in sorted(self.runs.get(network, {}).items())}

    def seeds(self, *networks: str) -> list[int]:
        """Return the seeds that all of some networks have."""
        return sorted(set.intersection(*(set(self.runs.get(name, {})) for name in networks)))


def accuracy(record: Record, degrees: int = 0) -> float:
    """The accuracy in percent, on images rotated by some degrees."""
    results = record["results"]
    return 100 * results["correct"][str(degrees)] / results["images"]


def rotation_drop(record: Record) -> float:
    """By how many points the accuracy on rotated images is lower, as the mean over 90, 180 and 270 degrees."""
    turned = [accuracy(record, degrees) for degrees in QUARTERS if degrees]
    return accuracy(record) - sum(turned) / len(turned)


def attack_setting(record: Record, epsilon: int, steps: int) -> Record:
    """Return the row of an attack."""
    settings = record["results"]["attack"]["settings"]
    return next(row for row in settings if (row["epsilon"], row["steps"]) == (epsilon, steps))


def attack_success(record: Record, epsilon: int, steps: int, among: frozenset[int] | None = None) -> float:
    """The share in percent of attacked images that are taken for their target.

    Args:
        record: Line of the ledger.
        epsilon: Bound of the attack in 255ths.
        steps: Number of its steps.
        among: Numbers of the images that count. Defaults to None, for all.
    """
    targets = record["results"]["attack"]["targets"]
    return _share(attack_setting(record, epsilon, steps)["predictions"], targets, among)


def mean_success(record: Record) -> float:
    """The success of the attack as the mean over all bounds and numbers of steps."""
    settings = record["results"]["attack"]["settings"]
    return fmean(attack_success(record, row["epsilon"], row["steps"]) for row in settings)


def attacked_accuracy(record: Record, epsilon: int, steps: int, among: frozenset[int] | None = None) -> float:
    """The share in percent of attacked images that are classified correctly. The arguments are as above."""
    labels = record["results"]["attack"]["labels"]
    return _share(attack_setting(record, epsilon, steps)["predictions"], labels, among)


def all_right(records: Iterable[Record]) -> frozenset[int]:
    """Return the numbers of the attacked images that each of some runs classifies correctly without an attack."""
    sets = [
        {
            index
            for index, (label, clean) in enumerate(
                zip(record["results"]["attack"]["labels"], record["results"]["attack"]["clean"], strict=True)
            )
            if label == clean
        }
        for record in records
    ]
    return frozenset(set.intersection(*sets)) if sets else frozenset()


def _share(predictions: str, wanted: str, among: frozenset[int] | None) -> float:
    indices = range(len(wanted)) if among is None else sorted(among)
    if not indices:
        return 0.0
    return 100 * sum(predictions[index] == wanted[index] for index in indices) / len(indices)


def _machine(record: Record) -> str:
    measured = record["measured"]
    threads = "thread" if measured["threads"] == 1 else "threads"
    return f"{measured['device']}, {measured['threads']} {threads} a run, torch {measured['torch']}"
