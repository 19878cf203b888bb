"""The runs of a suite: what defines each, which wait for others, and which are finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from .networks import NETWORKS
from .recipes import Recipe, Suite

SEARCH, RESULT = "learning rate", "result"
Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A training and what is measured after it.

    The learning rate of a result is None until the runs that choose it are finished.
    """

    recipe: Recipe
    network: str
    seed: int
    purpose: str
    learning_rate: float | None = None

    @property
    def epochs(self) -> int:
        """Epochs of the training."""
        return self.recipe.search_epochs if self.purpose == SEARCH else self.recipe.epochs

    @property
    def title(self) -> str:
        """What the progress and the list of unfinished runs call it."""
        rate = f"learning rate {self.learning_rate:g}" if self.purpose == SEARCH else f"seed {self.seed}"
        return f"{NETWORKS[self.network].title}, {rate}"

    def definition(self, data: str) -> Record:
        """Return what determines the result: with the same definition, a run in the ledger is not run again.

        Args:
            data: Fingerprint of the images.
        """
        defined = {
            "purpose": self.purpose,
            "network": self.network,
            "seed": self.seed,
            "learning_rate": self.learning_rate,
            "recipe": asdict(self.recipe),
            "data": data,
        }
        return json.loads(json.dumps(defined))  # with lists for tuples, as it is read from the ledger

    def key(self, data: str) -> str:
        """Return a name for the files of the run, different for different definitions."""
        text = json.dumps(self.definition(data), sort_keys=True)
        rate = f"-lr{self.learning_rate:g}" if self.purpose == SEARCH else ""
        return (
            f"{self.recipe.name}-{self.network}-seed{self.seed}{rate}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        )


def list_runs(
    suite: Suite, ablations: bool = False, seeds: int | None = None, networks: Collection[str] | None = None
) -> list[Run]:
    """List the runs of a suite in their order; learning rates are chosen before the first run that needs them.

    Args:
        suite: What to run.
        ablations: Whether to run its ablations as well. Defaults to False.
        seeds: Number of seeds of every stage. Defaults to None, for the suite's own.
        networks: The networks to run. Defaults to None, for all of the suite.

    Example:
        >>> from .recipes import SUITES
        >>> [run.title for run in list_runs(SUITES["quick"])][-2:]
        ['SAN10 pairwise, seed 0', 'SAN10 patchwise, seed 0']
    """
    runs: dict[Run, None] = {}
    for stage in (*suite.stages, *(suite.ablations if ablations else ())):
        names = [name for name in stage.networks if networks is None or name in networks]
        for base in dict.fromkeys(NETWORKS[name].base for name in names):
            for rate in stage.recipe.learning_rates:
                runs[Run(stage.recipe, base, 0, SEARCH, rate)] = None
        for seed in range(stage.seeds if seeds is None else seeds):
            for name in names:
                runs[Run(stage.recipe, name, seed, RESULT)] = None
    return list(runs)


def resolve(run: Run, records: Iterable[Record], data: str) -> Run | None:
    """Return the run with its learning rate, or None if the runs that choose it are not finished.

    The rate with the most correct images is chosen, and of equal ones the lowest.
    """
    if run.purpose == SEARCH:
        return run
    correct: dict[float, int] = {}
    searches = [Run(run.recipe, NETWORKS[run.network].base, 0, SEARCH, rate) for rate in run.recipe.learning_rates]
    for search in searches:
        if (record := find(search, records, data)) is None:
            return None
        assert search.learning_rate is not None
        correct[search.learning_rate] = record["results"]["correct"]["0"]
    return replace(run, learning_rate=max(sorted(correct), key=correct.__getitem__))


def find(run: Run, records: Iterable[Record], data: str) -> Record | None:
    """Return the record of a run, or None if it is not finished."""
    definition = run.definition(data)
    return next((record for record in records if definition.items() <= record.items()), None)


def unfinished(runs: Iterable[Run], records: list[Record], data: str) -> Iterator[Run]:
    """Yield the runs that are not in the ledger, resolved as far as possible."""
    for run in runs:
        resolved = resolve(run, records, data)
        if resolved is None:
            yield run
        elif find(resolved, records, data) is None:
            yield resolved
