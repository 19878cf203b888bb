"""The parts of docs/evidence.md on the weights that runs have saved: attacks on them, and their attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from .attention import ATTENTION, MEASURES, TIMES
from .autoattack import AUTOATTACK
from .ledger import Record
from .markdown import number, table
from .measures import Results, accuracy, attack_setting
from .metafile import best_runs
from .networks import NETWORKS
from .prose import LOADING


def autoattack_section(results: Results, networks: Sequence[str], records: Sequence[Record]) -> Iterator[str]:
    """Yield the paragraphs on the attacks.

    Args:
        results: The runs of a recipe.
        networks: The networks to show.
        records: Lines of the ledger; those of other kinds are ignored.
    """
    yield "### AutoAttack"
    measured = {name: pairs for name in networks if (pairs := _of_network(results, name, records))}
    if not measured:
        yield "**Not run yet.** `python -m experiments attack` attacks the weights that the runs have saved."
        return
    settings = next(iter(measured.values()))[0][1]["settings"]
    count = len(next(iter(measured.values()))[0][1]["results"]["labels"])
    yield (
        "`python -m experiments attack`: accuracy in percent under two attacks of "
        f"[AutoAttack](https://arxiv.org/abs/2003.01690), as the mean over seeds, on {count} of the attacked images. "
        f"APGD adapts its step, {settings['apgd_steps']} steps for each of {settings['apgd_targets']} targets. Square "
        f"uses no gradient but {settings['square_queries']:,} queries. PGD is the attack above with its largest number "
        "of steps, towards one random class."
    )
    rows, only_square = [], 0
    for name, pairs in measured.items():
        for epsilon in settings["epsilons"]:
            columns = [[_right(column, record) for column in _columns(run, record, epsilon)] for run, record in pairs]
            means = (number(fmean(column)) for column in zip(*columns, strict=True))
            rows.append([NETWORKS[name].title, f"{epsilon}/255", str(len(pairs)), *means])
            only_square += sum(_only_square(record, epsilon) for _, record in pairs)
    yield table(["network", "bound", "seeds", "no attack", "PGD", "APGD", "Square"], rows)
    total = count * len(settings["epsilons"]) * sum(map(len, measured.values()))
    yield (
        f"Square succeeds where APGD fails on {only_square} of {total:,} attacked images. Many would mean that a "
        "network hides its gradients from the other attacks."
    )
    if missing := [NETWORKS[name].title for name in networks if name not in measured]:
        yield f"**Not run yet**: {'; '.join(missing)}."


def attention_section(results: Results, networks: Sequence[str], records: Sequence[Record]) -> Iterator[str]:
    """Yield the paragraphs of docs/evidence.md on attention.

    Args:
        results: The runs of a recipe.
        networks: The networks to show, of which ResNets are left out.
        records: Lines of the ledger; those of other kinds are ignored.
    """
    yield "### Attention at edges and in flat regions"
    digests = {run["results"]["weights"] for runs in results.runs.values() for run in runs.values()}
    measured = [each for each in records if each["purpose"] == ATTENTION and each["weights"] in digests]
    if not measured:
        yield "**Not run yet.** `python -m experiments attention` measures the weights that the runs have saved."
        return
    count = measured[0]["results"]["images"]
    yield (
        "`python -m experiments attention`: the weights of the last layer of each stage at the strongest edge of an "
        f"image and in its flattest region, before and after training, as the mean over {count} validation images and "
        "over seeds. The *difference* is 0 if both pixels have the same weights, as in a convolution, and about 1 or "
        "more if the weights are unrelated. The *entropy* is 1 if all weights of a footprint are equal. "
        "[Visualize attention](visualize.md) has pictures."
    )
    headings = [f"{name}, {time}" for name in MEASURES for time in TIMES]
    rows = []
    for network in networks:
        own = [record["results"] for record in measured if record["network"] == network]
        for index, row in enumerate(own[0]["after"] if own else ()):
            values = [fmean(each[time][index][name] for each in own) for name in MEASURES for time in TIMES]
            rows.append([f"{NETWORKS[network].title}, {row['stage']}", *(f"{value:.3f}" for value in values)])
    yield table(["stage", *headings], rows)


def weights_section(records: Sequence[Record]) -> Iterator[str]:
    """Yield the paragraphs on the weights themselves: how they are loaded, and the best of each network."""
    rows = []
    for run in best_runs(records):
        network, recipe, results = run["network"], run["recipe"]["name"], run["results"]
        rows.append(
            [NETWORKS[network].title, recipe, str(run["seed"]), number(accuracy(run)), f"`{results['weights']}`"]
        )
    yield "## Weights"
    yield LOADING.strip()
    yield table(["network", "recipe", "seed", "top-1, %", "SHA-256"], rows) if rows else "**Not run yet.**"


def _of_network(results: Results, network: str, records: Sequence[Record]) -> list[tuple[Record, Record]]:
    """Return the runs of a network whose weights were attacked, each with the line of the attack."""
    attacked = {record["weights"]: record for record in records if record["purpose"] == AUTOATTACK}
    runs = (run for _, run in sorted(results.runs.get(network, {}).items()))
    return [(run, attacked[digest]) for run in runs if (digest := run["results"]["weights"]) in attacked]


def _columns(run: Record, record: Record, epsilon: int) -> Sequence[str]:
    """Return how the images are classified without an attack and under PGD, APGD and Square."""
    return (
        record["results"]["clean"],
        _under_pgd(run, record, epsilon),
        _predictions(record, "apgd", epsilon),
        _predictions(record, "square", epsilon),
    )


def _predictions(record: Record, attack: str, epsilon: int) -> str:
    rows = record["results"]["attacks"]
    return next(row["predictions"] for row in rows if (row["attack"], row["epsilon"]) == (attack, epsilon))


def _under_pgd(run: Record, record: Record, epsilon: int) -> str:
    """Return how the images are classified under PGD, which attacks more images of each class, these first."""
    predictions = attack_setting(run, epsilon, max(run["recipe"]["attack_steps"]))["predictions"]
    labels, own = run["results"]["attack"]["labels"], record["results"]["labels"]
    chosen = [labels.index(label) + index for label in dict.fromkeys(own) for index in range(own.count(label))]
    return "".join(predictions[index] for index in chosen)


def _right(predictions: str, record: Record) -> float:
    labels = record["results"]["labels"]
    return 100 * sum(map(str.__eq__, predictions, labels)) / len(labels)


def _only_square(record: Record, epsilon: int) -> int:
    """Count the images that are classified correctly under APGD and not under Square."""
    found = zip(
        record["results"]["labels"],
        _predictions(record, "apgd", epsilon),
        _predictions(record, "square", epsilon),
        strict=True,
    )
    return sum(label == apgd != square for label, apgd, square in found)
