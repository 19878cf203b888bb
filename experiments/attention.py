"""How attention differs between an edge and a flat region of a photograph, before and after training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean

import torch
from torch import Tensor, nn

from sa_layers.benchmark.machine import describe
from sa_layers.extras import require

from .imagenette import CLASSES
from .kept_weights import KeptWeights
from .ledger import Ledger, Record
from .networks import MEAN, NETWORKS, STD, make_network
from .plan import RESULT
from .views import Views, first_of_each_class

ATTENTION = "attention"
PER_CLASS = 10  # validation images
MEASURES, TIMES = ("difference", "entropy at edges", "entropy in flat regions"), ("before", "after")


def measure(network: nn.Module, pixels: Tensor) -> list[Record]:
    """Measure the weights of the last layer of each stage at an edge and in a flat region of each image.

    Args:
        network: A SAN.
        pixels: Images (N, 3, H, W), as bytes.

    Returns:
        For each stage, the means over all images: the entropies of the weights, and the difference of both pixels'
        weights relative to their mean absolute value (0 if they are equal, as those of a convolution are).
    """
    require("experiments", "cv2")
    from sa_layers.visualize import attention_weights, difference, entropy
    from sa_layers.visualize.pixels import choose_pixels
    from sa_layers.visualize.weights import last_of_each_stage

    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    found: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for image in pixels.cpu():
        chosen = choose_pixels(image.permute(1, 2, 0).numpy())
        for layer in last_of_each_stage(attention_weights(network, (image / 255 - mean) / std)):
            edge, flat = layer.kernels(chosen["edge"]), layer.kernels(chosen["flat"])
            found[layer.stage].append((difference(edge, flat), entropy(edge), entropy(flat)))
    means = {stage: [round(fmean(column), 4) for column in zip(*rows, strict=True)] for stage, rows in found.items()}
    return [{"stage": stage} | dict(zip(MEASURES, values, strict=True)) for stage, values in means.items()]


def measure_kept(kept: Iterable[KeptWeights], views: Views, ledger: Ledger) -> None:
    """Measure the SANs that are not in the ledger, before and after training, and add each to it.

    Args:
        kept: Weights of finished runs.
        views: The images on which they were tested.
        ledger: The ledger.

    Raises:
        ExperimentError: A file of weights is not that of the ledger.
    """
    for weights in kept:
        run = weights.run
        definition = {"purpose": ATTENTION, **weights.origin, "per_class": PER_CLASS}
        if "blocks" in NETWORKS[run.network].options:
            continue  # a ResNet
        if any(definition.items() <= record.items() for record in ledger.read()):
            print(f"{run.title}: in {ledger.path} already", flush=True)
            continue
        images = first_of_each_class(views.tested(RESULT, run.recipe), PER_CLASS)
        before = measure(make_network(run.network, len(CLASSES), run.seed), images.pixels)
        after = measure(weights.load(), images.pixels)
        results = {"images": len(images), "before": before, "after": after}
        ledger.append({**definition, "results": results, "measured": describe(torch.device("cpu"))})
        print(f"{run.title}: done", flush=True)
