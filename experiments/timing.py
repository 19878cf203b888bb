"""How long the networks take for an image, measured side by side, as lines of the ledger."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial

import torch

from sa_layers.benchmark.machine import describe
from sa_layers.benchmark.measure import time_interleaved

from .imagenette import CLASSES
from .ledger import Record
from .networks import Normalized, make_network
from .recipes import Recipe

TIME = "time"
BATCHES = (1, 16)


def measure_times(
    recipe: Recipe, networks: Sequence[str], device: torch.device, seconds: float = 20.0, min_rounds: int = 5
) -> Iterator[Record]:
    """Time the evaluation of networks in alternation, and yield a line for each network and size of batch.

    Args:
        recipe: Its image size is used.
        networks: The networks.
        device: Where to compute.
        seconds: Time limit for each size of batch. Defaults to 20.
        min_rounds: Rounds that are measured in any case. Defaults to 5.
    """
    made = {name: Normalized(make_network(name, len(CLASSES), seed=0)).to(device).eval() for name in networks}
    for batch in BATCHES:
        images = torch.rand(batch, 3, recipe.image_size, recipe.image_size, device=device)
        with torch.no_grad():
            calls = {name: partial(network, images) for name, network in made.items()}
            timings = time_interleaved(calls, device, seconds=seconds, min_rounds=min_rounds)
        for name, timing in timings.items():
            yield {
                "purpose": TIME,
                "network": name,
                "batch": batch,
                "image_size": recipe.image_size,
                "measured": {"ms_per_image": 1000 * timing.median / batch, "rounds": timing.rounds} | describe(device),
            }


class Times:
    """The last measurement of every network at an image size.

    Args:
        records: Lines of the ledger.
        image_size: Side of the images in pixels.
        device_kind: 'cuda' or 'cpu'. Defaults to 'cpu'.
    """

    def __init__(self, records: Iterable[Record], image_size: int, device_kind: str = "cpu") -> None:
        gpu = device_kind == "cuda"
        self._found = {
            (record["network"], record["batch"]): record["measured"]
            for record in records
            if record["purpose"] == TIME
            and record["image_size"] == image_size
            and ("cuda" in record["measured"]) == gpu
        }

    def batches(self, networks: Collection[str]) -> list[int]:
        """Return the sizes of batch at which all of some networks were timed."""
        sizes = sorted({batch for _, batch in self._found})
        return [batch for batch in sizes if networks and all((name, batch) in self._found for name in networks)]

    def milliseconds(self, network: str, batch: int) -> float:
        """Return the milliseconds for each image."""
        return self._found[network, batch]["ms_per_image"]

    @property
    def machine(self) -> str:
        """The machine of the last measurement."""
        measured = list(self._found.values())[-1]
        threads = f"{measured['threads']} {'thread' if measured['threads'] == 1 else 'threads'}"
        return f"{measured['device']}, {threads}, torch {measured['torch']}"
