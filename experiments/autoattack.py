"""The attacks of AutoAttack, by the package pyautoattack, on the weights of finished runs.

"Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks"
(https://arxiv.org/abs/2003.01690): APGD, which adapts its step and tries several targets, and Square, which uses no
gradient. A network on which Square succeeds where APGD fails hides its gradients.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from sa_layers.benchmark.machine import describe
from sa_layers.extras import require

from .evaluation import BATCH, digits, predict
from .imagenette import Images
from .kept_weights import KeptWeights
from .ledger import Ledger, Record
from .networks import Normalized
from .plan import RESULT
from .views import Views, first_of_each_class

AUTOATTACK = "autoattack"


@dataclass(frozen=True)
class Settings:
    """What is attacked, and how long."""

    per_class: int = 5
    """Validation images of each class: the first of those that PGD attacks."""
    epsilons: tuple[int, ...] = (2, 8)
    """Bounds, in 255ths."""
    apgd_targets: int = 3
    """Targets of APGD: the most probable wrong classes."""
    apgd_steps: int = 50
    """Steps of APGD for each target."""
    square_queries: int = 1000
    """How often Square may classify a changed image."""


QUICK = Settings(epsilons=(8,), apgd_targets=1, apgd_steps=2, square_queries=4)
"""For the suite quick."""


def make_attacks(network: nn.Module, epsilon: float, settings: Settings, device: torch.device) -> dict[str, Any]:
    """Make the package's attacks on a network.

    Args:
        network: Maps images from 0 to 1 to logits, in evaluation mode.
        epsilon: Bound of the L-infinity norm.
        settings: How long they attack.
        device: Where to compute.
    """
    require("experiments", "pyautoattack")
    from pyautoattack.autopgd_base import APGDAttack_targeted
    from pyautoattack.square import SquareAttack

    return {
        "apgd": APGDAttack_targeted(
            network,
            n_iter=settings.apgd_steps,
            eps=epsilon,
            n_target_classes=settings.apgd_targets,
            device=device,
        ),
        "square": SquareAttack(
            network, n_queries=settings.square_queries, eps=epsilon, resc_schedule=False, device=device
        ),
    }


def measure(network: nn.Module, images: Images, settings: Settings) -> Iterator[Record]:
    """Attack images, and yield how the network classifies them then, for each attack and bound.

    Args:
        network: Maps images from 0 to 1 to logits, in evaluation mode. Its parameters need no gradients afterwards.
        images: The images.
        settings: The bounds, and how long the attacks are.
    """
    network.requires_grad_(False)
    for epsilon in settings.epsilons:
        for name, attack in make_attacks(network, epsilon / 255, settings, images.pixels.device).items():
            predictions = []
            for pixels, labels in zip(images.pixels.split(BATCH), images.labels.split(BATCH), strict=True):
                with torch.random.fork_rng():  # the attacks seed the global generator
                    predictions.append(predict(network, attack.perturb(pixels / 255, labels)))
            yield {"attack": name, "epsilon": epsilon, "predictions": digits(torch.cat(predictions))}


def attack_kept(kept: Iterable[KeptWeights], views: Views, ledger: Ledger, device: torch.device) -> None:
    """Attack the networks that are not in the ledger, and add each to it.

    Args:
        kept: Weights of finished runs.
        views: The images on which they were tested.
        ledger: The ledger.
        device: Where to compute.

    Raises:
        ExperimentError: A file of weights is not that of the ledger.
    """
    for weights in kept:
        settings = QUICK if weights.run.recipe.name == "quick" else Settings()
        definition = {"purpose": AUTOATTACK, **weights.origin, "settings": _written(settings)}
        if any(definition.items() <= record.items() for record in ledger.read()):
            print(f"{weights.run.title}: in {ledger.path} already", flush=True)
            continue
        network = Normalized(weights.load()).to(device).eval()
        per_class = min(settings.per_class, weights.run.recipe.attacked_per_class)
        images = first_of_each_class(views.tested(RESULT, weights.run.recipe), per_class)
        rows = []
        for row in measure(network, images, settings):
            right = sum(map(str.__eq__, row["predictions"], digits(images.labels)))
            print(
                f"{weights.run.title}: {row['attack']} within {row['epsilon']}/255, {right} of {len(images)} right",
                flush=True,
            )
            rows.append(row)
        results = {"labels": digits(images.labels), "clean": digits(predict(network, images.pixels)), "attacks": rows}
        measured = {"pyautoattack": version("pyautoattack")} | describe(device)
        ledger.append({**definition, "results": results, "measured": measured})


def _written(settings: Settings) -> Record:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}
