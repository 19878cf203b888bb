"""What is trained: the recipes, equal for all networks, and the suites of runs, the most decisive runs first."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Recipe:
    """How every network is trained and tested.

    SGD with momentum, a cosine schedule without warm-up, label smoothing, random resized crops and flips. The accuracy
    that counts is that of the last epoch.
    """

    name: str
    image_size: int = 64
    """Side in pixels of the images that a network sees."""
    source_size: int = 96
    """Side in pixels of the decoded images, from which training takes random crops."""
    images_per_class: int | None = 300
    """Training images of each class; None for all."""
    val_images_per_class: int | None = None
    """Validation images of each class; None for all."""
    epochs: int = 15
    batch: int = 16
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    learning_rates: tuple[float, ...] = (0.002, 0.006, 0.018)
    """The learning rates among which that of each network is chosen, on a tenth of the training images: about the
    paper's 0.1 for a batch of 256, scaled to the batch, a third of it, and three times it."""
    search_epochs: int = 4
    """Epochs of the runs that choose the learning rate."""
    attacked_per_class: int = 12
    """Validation images of each class that are attacked."""
    epsilons: tuple[int, ...] = (2, 4, 8, 16)
    """Bounds of the attack, in 255ths."""
    attack_steps: tuple[int, ...] = (2, 4, 10, 20)


@dataclass(frozen=True)
class Stage:
    """Runs of some networks with a recipe, seed after seed; the choice of their learning rates comes first."""

    recipe: Recipe
    networks: tuple[str, ...]
    seeds: int


@dataclass(frozen=True)
class Suite:
    """The stages of an experiment, in the order in which they are run."""

    name: str
    stages: tuple[Stage, ...]
    ablations: tuple[Stage, ...]


RELATIONS = (
    "san10-pairwise-summation",
    "san10-pairwise-concatenation",
    "san10-pairwise-hadamard",
    "san10-pairwise-dot",
    "san10-patchwise-star",
    "san10-patchwise-clique",
)
POSITIONS = ("san10-pairwise-position-none", "san10-pairwise-position-absolute")
FOOTPRINTS = tuple(f"san10-{attention}-{k}x{k}" for k in (3, 5, 9, 11) for attention in ("pairwise", "patchwise"))
TRIOS = tuple(
    (f"resnet{resnet}", f"san{depth}-pairwise", f"san{depth}-patchwise")
    for resnet, depth in ((26, 10), (38, 15), (50, 19))
)

TWO_CORES = Recipe("two-core")
GPU = Recipe(
    "gpu",
    images_per_class=None,
    epochs=40,
    batch=64,
    learning_rates=(0.008, 0.025, 0.075),
    search_epochs=10,
    attacked_per_class=100,
)
# At 64 pixels the maps have sides of 32, 16, 8, 4 and 2: a footprint of 7 x 7 is global from stage 3 on.
GPU_96 = replace(GPU, name="gpu-96px", image_size=96, attacked_per_class=20)
# A few steps of everything, for the tests.
QUICK = Recipe(
    "quick",
    images_per_class=2,
    val_images_per_class=2,
    image_size=32,
    epochs=2,
    batch=10,
    learning_rates=(0.01,),
    search_epochs=1,
    attacked_per_class=1,
    epsilons=(8,),
    attack_steps=(1, 2),
)


def _ablations(recipe: Recipe, seeds: int) -> tuple[Stage, ...]:
    return tuple(Stage(recipe, networks, seeds) for networks in (RELATIONS, POSITIONS, FOOTPRINTS))


SUITES = {
    "quick": Suite("quick", (Stage(QUICK, TRIOS[0], 1),), ()),
    "two-core": Suite("two-core", (Stage(TWO_CORES, TRIOS[0], 3),), _ablations(TWO_CORES, 2)),
    "gpu": Suite(
        "gpu",
        (
            Stage(GPU, TRIOS[0], 3),
            *(Stage(GPU, trio, 1) for trio in TRIOS[1:]),
            *(Stage(GPU, trio, 5) for trio in TRIOS),
        ),
        (Stage(GPU_96, TRIOS[0], 2), *_ablations(GPU_96, 2)),
    ),
}
