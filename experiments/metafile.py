"""The metafile of the weights that were trained on Imagenette, made from the ledger: ``python -m experiments page``.

The weights are not in the repository. The metafile says which command makes them, their SHA-256 and their accuracy.
"""

from __future__ import annotations

from collections.abc import Iterable

from .kept_weights import file_name
from .ledger import Record
from .measures import accuracy
from .plan import RESULT

CONFIGS = {"two-core": "configs/classification/{}_1xb16-15e_imagenette-64px.py"}
"""The configs of the networks of a recipe."""

HEADER = """\
# Made by `python -m experiments page` from the ledger: edit experiments/metafile.py instead. For each network, the most
# accurate of its runs. The weights are not published; the command makes them. FLOPs are multiply-adds at 64 x 64.
Collections:
  - Name: Imagenette
    Metadata:
      Training Data: Imagenette
      Training Techniques:
        - SGD with Momentum
        - Weight Decay
        - Label Smoothing
        - Cosine Annealing

"""

MODEL = """\
  - Name: {name}
    In Collection: Imagenette
    Metadata:
      Parameters: {parameters}
      FLOPs: {multiply_adds}
      Training Images per Class: {images}
      Learning Rate: {rate:g}
      Seed: {seed}
      Training Command: {command}
      File: work_dirs/evidence/weights/{file}
      SHA-256: {digest}
    Results:
      - Task: Image Classification
        Dataset: Imagenette
        Metrics:
          Top 1 Accuracy: {accuracy:.2f}
    Config: {config}
"""


def best_runs(records: Iterable[Record]) -> list[Record]:
    """Return the most accurate run of each network with each recipe."""
    best: dict[tuple[str, str], Record] = {}
    for record in records:
        if record["purpose"] == RESULT:
            key = record["recipe"]["name"], record["network"]
            best[key] = max(best.get(key, record), record, key=accuracy)
    return list(best.values())


def make_metafile(records: Iterable[Record]) -> str:
    """Make the text of the metafile.

    Args:
        records: Lines of the ledger, possibly none.
    """
    models = [_model(run) for run in best_runs(records) if run["recipe"]["name"] in CONFIGS]
    return HEADER + ("Models:\n" + "".join(models) if models else "Models: []\n")


def _model(run: Record) -> str:
    recipe, network, results = run["recipe"], run["network"], run["results"]
    config = CONFIGS[recipe["name"]].format(network)
    return MODEL.format(
        name=config.rpartition("/")[2].removesuffix(".py"),
        parameters=results["parameters"],
        multiply_adds=results["multiply_adds"],
        images=recipe["images_per_class"],
        rate=run["learning_rate"],
        seed=run["seed"],
        command=f"python -m experiments run --suite {recipe['name']} --networks {network} --seeds {run['seed'] + 1}",
        file=file_name(recipe["name"], network, run["seed"], results["weights"]),
        digest=results["weights"],
        accuracy=accuracy(run),
        config=config,
    )
