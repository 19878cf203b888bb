"""The tables of docs/evidence.md: accuracies, paired differences and what they say of a claim."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import fmean

from .evaluation import QUARTERS
from .expectations import Expectation
from .intervals import Interval, interval, paired
from .markdown import number, table, with_interval
from .measures import (
    Measure,
    Results,
    accuracy,
    all_right,
    attack_success,
    attacked_accuracy,
    rotation_drop,
)
from .networks import NETWORKS


def title(network: str) -> str:
    """Return the name of a network in tables."""
    return NETWORKS[network].title


def mean(results: Results, network: str, measure: Measure) -> Interval | None:
    """Return the mean of a measure over the seeds of a network, or None if none is run."""
    values = list(results.of(network, measure).values())
    return interval(values) if values else None


def accuracies(results: Results, networks: Sequence[str]) -> str:
    """Cost and accuracy of networks, with every single run."""
    rows = []
    for name in networks:
        runs = results.runs.get(name, {})
        if not runs:
            rows.append([title(name), "", "", "", "not run yet", ""])
            continue
        first = next(iter(runs.values()))
        single = ", ".join(number(value) for value in results.of(name, accuracy).values())
        costs = [f"{first['results'][cost] / 1e6:.{digits}f} M" for cost, digits in COSTS]
        rows.append(
            [title(name), *costs, f"{first['learning_rate']:g}", with_interval(mean(results, name, accuracy)), single]
        )
    return table(["network", "parameters", "multiply-adds", "learning rate", "top-1, %", "each seed"], rows)


COSTS = (("parameters", 1), ("multiply_adds", 0))


def claims(results: Results, expectations: Sequence[Expectation], measure: Measure, lower: bool = False) -> str:
    """Paired differences for the expected orders, and whether they hold.

    Args:
        results: The runs.
        expectations: Which of two networks should be better.
        measure: What is compared.
        lower: Whether lower values are better. Defaults to False.
    """
    rows = []
    for expected in expectations:
        difference = paired(results.of(expected.better, measure), results.of(expected.worse, measure))
        seeds = results.seeds(expected.better, expected.worse)
        rows.append(
            [
                f"{title(expected.better)} minus {title(expected.worse)}",
                f"{'below' if lower else 'above'} 0" if expected.strictly else f"not {'above' if lower else 'below'} 0",
                with_interval(difference, sign=True),
                str(len(seeds)),
                verdict(difference, expected.strictly, lower),
            ]
        )
    return table(["difference", "expected", "points", "seeds", ""], rows)


def verdict(difference: Interval | None, strictly: bool, lower: bool) -> str:
    """Say in a few words what a difference says of a claim.

    >>> verdict(Interval(2.0, 1.0, 3), True, lower=False), verdict(Interval(2.0, 1.0, 3), True, lower=True)
    ('**holds**', '**does not hold**')
    >>> verdict(Interval(0.5, 1.0, 3), True, lower=False)
    '**not shown**: the interval contains 0'
    """
    if difference is None:
        return "not run yet"
    if difference.half_width is None:
        return "one seed: no interval"
    low, high = (-difference.high, -difference.low) if lower else (difference.low, difference.high)
    if low > 0:
        return "**holds**"
    if high < 0:
        return "**does not hold**"
    return "**not shown**: the interval contains 0" if strictly else "no difference shown: the interval contains 0"


def rotations(results: Results, networks: Sequence[str]) -> str:
    """Accuracy on rotated images, and how much lower it is."""
    rows = []
    for name in networks:
        means = [mean(results, name, partial(accuracy, degrees=degrees)) for degrees in QUARTERS]
        drop = with_interval(mean(results, name, rotation_drop))
        rows.append([title(name), *("" if value is None else number(value.mean) for value in means), drop])
    return table(["network", *(f"{degrees}\u00b0" for degrees in QUARTERS), "drop, points"], rows)


def attacks(results: Results, networks: Sequence[str], common: bool) -> str:
    """Success of the targeted attack and accuracy under it, for every bound and number of steps.

    Args:
        results: The runs.
        networks: The networks.
        common: Whether only images count that all networks of a seed classify correctly without an attack.
    """
    seeds = results.seeds(*networks)
    among = {seed: all_right(results.runs[name][seed] for name in networks) if common else None for seed in seeds}
    rows = []
    for epsilon in results.recipe["epsilons"]:
        for steps in results.recipe["attack_steps"]:
            cells = []
            for name in networks:
                success, right = (
                    fmean(share(results.runs[name][seed], epsilon, steps, among[seed]) for seed in seeds)
                    for share in (attack_success, attacked_accuracy)
                )
                cells.append(f"{number(success)} / {number(right)}")
            rows.append([f"{epsilon}/255, {steps} {'step' if steps == 1 else 'steps'}", *cells])
    return table(["bound", *(title(name) for name in networks)], rows)


def searches(results: Results, networks: Sequence[str]) -> str:
    """Accuracy on the held-out images for each learning rate, the chosen one in bold."""
    found: dict[tuple[str, float], float] = {
        (record["network"], record["learning_rate"]): accuracy(record) for record in results.searches
    }
    rates = results.recipe["learning_rates"]
    rows = []
    for name in networks:
        values = {rate: found[name, rate] for rate in rates if (name, rate) in found}
        best = max(values, key=values.__getitem__) if len(values) == len(rates) else None
        cells = {rate: number(value) for rate, value in values.items()}
        if best is not None:
            cells[best] = f"**{cells[best]}**"
        rows.append([title(name), *(cells.get(rate, "not run yet") for rate in rates)])
    return table(["network", *(f"{rate:g}" for rate in rates)], rows)


def ablation(results: Results, ranks: Sequence[Sequence[str]]) -> str:
    """Accuracy of the variants of a network, and the paired difference to the paper's choice, the first.

    Args:
        results: The runs.
        ranks: Networks in the expected order; those that share a place are not expected to differ.
    """
    base = ranks[0][0]
    rows = []
    for place, rank in enumerate(ranks, start=1):
        for name in rank:
            row = [title(name), str(place), with_interval(mean(results, name, accuracy)), "", ""]
            if name != base:
                difference = paired(results.of(name, accuracy), results.of(base, accuracy))
                row[3] = with_interval(difference, sign=True)
                row[4] = "" if place == 1 else verdict(difference, strictly=True, lower=True)
            rows.append(row)
    return table(["network", "expected place", "top-1, %", f"minus {title(base)}, points", "behind it"], rows)
