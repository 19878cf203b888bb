"""An estimate of how long a suite takes, from a few steps of each network."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from .attack import attack
from .evaluation import predict, settings
from .imagenette import CLASSES
from .networks import NETWORKS, Normalized, make_network
from .plan import SEARCH, Run
from .recipes import Recipe

STEPS = 3
TRAIN, VAL = sum(each.train for each in CLASSES.values()), sum(each.val for each in CLASSES.values())


class Costs(NamedTuple):
    """Seconds for an image: a step of training, a step of the attack, a prediction."""

    training: float
    attack: float
    prediction: float


def measure_costs(network: str, recipe: Recipe, device: torch.device) -> Costs:
    """Time a few steps: on a CPU the processor time of all threads, which other processes do not change."""
    model = Normalized(make_network(network, len(CLASSES), seed=0)).to(device)
    images = torch.rand(recipe.batch, 3, recipe.image_size, recipe.image_size, device=device)
    labels = torch.arange(recipe.batch, device=device) % len(CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=recipe.momentum)

    def train() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    training = _seconds(train, device)
    model.eval().requires_grad_(False)
    attacked = _seconds(lambda: list(attack(model, images, labels, 8, 1.0, [1])), device)
    predicted = _seconds(lambda: predict(model, images), device)
    return Costs(*(seconds / recipe.batch for seconds in (training, attacked, predicted)))


def seconds_of(run: Run, costs: Costs) -> float:
    """Return how long a run takes."""
    recipe = run.recipe
    images = TRAIN if recipe.images_per_class is None else recipe.images_per_class * len(CLASSES)
    trained = images * run.epochs * costs.training
    if run.purpose == SEARCH:
        return trained + TRAIN / 10 * costs.prediction
    steps = sum(max(numbers) for numbers in settings(recipe).values())
    attacked = recipe.attacked_per_class * len(CLASSES) * steps * costs.attack
    return trained + 4 * VAL * costs.prediction + attacked


def print_estimate(runs: Sequence[Run], device: torch.device) -> None:
    """Print the time of the runs by network and purpose, on one thread or one GPU."""
    torch.set_num_threads(1)
    costs: dict[tuple[str, Recipe], Costs] = {}
    seconds: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for run in runs:
        key = run.network, run.recipe
        if key not in costs:
            costs[key] = measure_costs(*key, device)
        seconds[NETWORKS[run.network].title, run.recipe.name, run.purpose].append(seconds_of(run, costs[key]))
    unit = "minutes of a GPU" if device.type == "cuda" else "minutes of a core"
    table = Table("network", "recipe", "runs for", "runs", unit)
    for names, values in seconds.items():
        table.add_row(*names, str(len(values)), f"{sum(values) / 60:.0f}")
    table.add_section()
    table.add_row("all", "", "", str(len(runs)), f"{sum(map(sum, seconds.values())) / 60:.0f}")
    Console().print(table)


def _seconds(step: Callable[[], object], device: torch.device) -> float:
    def now() -> float:
        if device.type != "cuda":
            return time.process_time()
        torch.cuda.synchronize(device)
        return time.perf_counter()

    step()
    begin = now()
    for _ in range(STEPS):
        step()
    return (now() - begin) / STEPS
