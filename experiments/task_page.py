"""The part of docs/evidence.md on segmentation and detection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .intervals import interval, paired
from .ledger import Record
from .markdown import list_of, number, table, with_interval
from .networks import NETWORKS as TITLES
from .tasks import NETWORKS, TASKS

INTRODUCTION = """
mmseg and mmdet train and test these networks with their own tools and configs of `mm_configs/`, from random weights,
with the same recipe for both networks; the learning rate was not tuned. The reported metric is that of the last
checkpoint on the test set. [OpenMMLab](openmmlab.md#train-on-camvid-and-bccd) says where the data come from.
"""


def task_sections(records: Sequence[Record]) -> Iterator[str]:
    """Yield the paragraphs of the tasks.

    Args:
        records: Lines of the ledger; those of other kinds are ignored.
    """
    yield "## Segmentation and detection"
    yield "```bash\npython -m experiments tasks\n```"
    yield INTRODUCTION.strip()
    for purpose, task in TASKS.items():
        runs = {
            name: {
                record["seed"]: record
                for record in records
                if (record["purpose"], record["network"]) == (purpose, name)
            }
            for name in NETWORKS
        }
        yield f"### {task.title}"
        yield task.description
        yield from _results(runs, task.metric)


def _results(runs: dict[str, dict[int, Record]], metric: str) -> Iterator[str]:
    if not any(runs.values()):
        yield "**Not run yet.**"
        return
    values = {
        name: {seed: record["results"][metric] for seed, record in sorted(of_seeds.items())}
        for name, of_seeds in runs.items()
    }
    yield table(
        ["network", "parameters", metric, "each seed", "config"],
        [_row(name, runs[name], values[name]) for name in NETWORKS],
    )
    better, other = NETWORKS
    if difference := paired(values[better], values[other]):
        yield (
            f"Difference of {metric}, {TITLES[better].title} minus {TITLES[other].title}, with the same seeds: "
            f"{with_interval(difference, sign=True)}."
        )
    records = [record for of_seeds in runs.values() for record in of_seeds.values()]
    machines = dict.fromkeys(f"{record['measured']['device']} ({_threads(record)})" for record in records)
    yield f"Run on {list_of(machines)}."


def _row(name: str, runs: dict[int, Record], values: dict[int, float]) -> list[str]:
    if not runs:
        return [TITLES[name].title, "", "not run yet", "", ""]
    first = next(iter(runs.values()))
    return [
        TITLES[name].title,
        f"{first['results']['parameters'] / 1e6:.1f} M",
        with_interval(interval(list(values.values()))),
        ", ".join(map(number, values.values())),
        f"`{first['recipe']['config'].rpartition('/')[2].removesuffix('.py')}`",
    ]


def _threads(record: Record) -> str:
    threads = record["measured"]["threads"]
    return "one thread" if threads == 1 else f"{threads} threads"
