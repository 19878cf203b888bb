"""The part of docs/evidence.md on segmentation and detection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .intervals import interval, paired
from .ledger import Record
from .markdown import list_of, number, table, with_interval
from .networks import NETWORKS as TITLES
from .tasks import NETWORKS, TASKS

STARTS = SCRATCH, PRETRAINED = "random weights", "Imagenette"
Runs = dict[tuple[str, str], dict[int, Record]]
"""The runs of a network from a start, by their seeds."""

INTRODUCTION = """
mmseg and mmdet train and test these networks with their own tools and configs of `mm_configs/`, with the same recipe
for all, from random weights or (`--pretrained`) from the best [weights](#weights) of each network on Imagenette. The
learning rate was not tuned. The reported metric is that of the last checkpoint on the test set.
[OpenMMLab](openmmlab.md#train-on-camvid-and-bccd) says where the data come from.
"""


def task_sections(records: Sequence[Record]) -> Iterator[str]:
    """Yield the paragraphs of the tasks.

    Args:
        records: Lines of the ledger; those of other kinds are ignored.
    """
    yield "## Segmentation and detection"
    yield "```bash\npython -m experiments tasks\npython -m experiments tasks --pretrained\n```"
    yield INTRODUCTION.strip()
    for purpose, task in TASKS.items():
        runs: Runs = {(name, start): {} for start in STARTS for name in NETWORKS}
        for record in records:
            if record["purpose"] == purpose:
                runs[record["network"], STARTS["weights" in record]][record["seed"]] = record
        yield f"### {task.title}"
        yield task.description
        yield from _results(runs, task.metric)


def _results(runs: Runs, metric: str) -> Iterator[str]:
    if not any(runs.values()):
        yield "**Not run yet.**"
        return
    values = {
        key: {seed: record["results"][metric] for seed, record in sorted(of_seeds.items())}
        for key, of_seeds in runs.items()
    }
    yield table(
        ["network", "start", "parameters", metric, "each seed", "config"],
        [_row(*key, runs[key], values[key]) for key in runs],
    )
    better, other = NETWORKS
    compared = [
        *(((better, start), (other, start), f", {start}") for start in STARTS),
        *(((name, PRETRAINED), (name, SCRATCH), "") for name in NETWORKS),
    ]
    rows = [
        [f"{_compared(one, two)}{where}", with_interval(difference, sign=True)]
        for one, two, where in compared
        if (difference := paired(values[one], values[two]))
    ]
    if rows:
        yield "Differences, with the same seeds:"
        yield table(["difference", metric], rows)
    measured = [record["measured"] for of_seeds in runs.values() for record in of_seeds.values()]
    machines = dict.fromkeys(f"{each['device']} ({_threads(each)})" for each in measured)
    yield f"Run on {list_of(machines)}."


def _compared(one: tuple[str, str], two: tuple[str, str]) -> str:
    if one[0] == two[0]:
        return f"{TITLES[one[0]].title}: {one[1]} minus {two[1]}"
    return f"{TITLES[one[0]].title} minus {TITLES[two[0]].title}"


def _row(name: str, start: str, runs: dict[int, Record], values: dict[int, float]) -> list[str]:
    if not runs:
        return [TITLES[name].title, start, "", "not run yet", "", ""]
    first = next(iter(runs.values()))
    return [
        TITLES[name].title,
        start,
        f"{first['results']['parameters'] / 1e6:.1f} M",
        with_interval(interval(list(values.values()))),
        ", ".join(map(number, values.values())),
        f"`{first['recipe']['config'].rpartition('/')[2].removesuffix('.py')}`",
    ]


def _threads(measured: Record) -> str:
    threads = measured["threads"]
    return "one thread" if threads == 1 else f"{threads} threads"
