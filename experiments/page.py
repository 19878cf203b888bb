"""docs/evidence.md, made from the ledger: ``python -m experiments page``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sa_layers.output_file import output_file

from . import tables
from .expectations import ABLATIONS, robustness
from .expectations import accuracy as expected_accuracy
from .intervals import paired
from .ledger import Record
from .markdown import list_of, number, table, with_interval
from .measures import Results, accuracy, all_right, attack_success, mean_success, rotation_drop
from .plan import RESULT, Run, list_runs, unfinished
from .plots import Panel, attack_panels, cost_panels, draw, rotation_panels
from .prose import INTRODUCTION, METHOD, RUNNING
from .recipes import SUITES, TRIOS, Recipe, Suite
from .task_page import task_sections
from .timing import Times
from .weights_page import attention_section, autoattack_section, weights_section

NOTE = "<!-- Made by `python -m experiments page` from the ledger: edit experiments/page.py or prose.py instead. -->"
FIGURES = "images"


class Page(NamedTuple):
    """The page, and the figures that it shows, by the name of their files."""

    text: str
    figures: dict[str, list[Panel]]


class Section(NamedTuple):
    """The part of the page on a recipe."""

    heading: str
    recipe: Recipe
    suite: Suite
    command: str
    trios: Sequence[tuple[str, str, str]]


SECTIONS = (
    Section("Two cores", SUITES["two-core"].stages[0].recipe, SUITES["two-core"], "make evidence", TRIOS[:1]),
    Section("A GPU", SUITES["gpu"].stages[0].recipe, SUITES["gpu"], "make evidence DEVICE=cuda", TRIOS),
)


def make_page(records: list[Record]) -> Page:
    """Make the page of what is in the ledger.

    Args:
        records: Lines of the ledger, possibly none.
    """
    parts = [NOTE, INTRODUCTION.strip(), _summary(records), METHOD.strip()]
    figures: dict[str, list[Panel]] = {}
    for section in SECTIONS:
        results = Results(records, section.recipe.name)
        times = Times(records, section.recipe.image_size, "cuda" if section.suite.name == "gpu" else "cpu")
        parts += _section(section, results, records, times, figures)
    parts += [*task_sections(records), *weights_section(records), RUNNING.strip()]
    return Page("\n\n".join(parts) + "\n", figures)


def _summary(records: list[Record]) -> str:
    """Every claim with its difference, and whether it holds."""
    rows = []
    for section in SECTIONS:
        results = Results(records, section.recipe.name)
        for trio in section.trios:
            for claim, expectations, measure, lower in (
                ("accuracy", expected_accuracy(*trio), accuracy, False),
                ("drop on rotated images", robustness(*trio), rotation_drop, True),
                ("success of the attack", robustness(*trio), mean_success, True),
            ):
                for expected in expectations:
                    difference = paired(results.of(expected.better, measure), results.of(expected.worse, measure))
                    if difference is not None:
                        compared = f"{tables.title(expected.better)} minus {tables.title(expected.worse)}"
                        found = tables.verdict(difference, expected.strictly, lower)
                        rows.append(
                            [f"{compared}: {claim}", section.recipe.name, with_interval(difference, True), found]
                        )
    if not rows:
        return "**No two networks have been compared yet.**"
    return "In short:\n\n" + table(["difference", "recipe", "points", "the claim"], rows)


def _section(
    section: Section, results: Results, records: list[Record], times: Times, figures: dict[str, list[Panel]]
) -> Iterator[str]:
    yield f"## {section.heading}"
    yield f"```bash\n{section.command}\n```"
    if not results.runs and not results.searches:
        yield f"**Not run yet**: {_not_run(section, records)}. The recipe is in `experiments/recipes.py`."
        return
    yield _recipe(section.recipe)
    yield f"Run on {list_of(results.machines)}. Fingerprint of the decoded images: `{results.data}`."
    if left := _not_run(section, records):
        yield f"**Not run yet**: {left}."
    names = [name for trio in section.trios for name in trio if name in results.runs]
    yield "### Accuracy"
    yield tables.accuracies(results, [name for trio in section.trios for name in trio])
    for trio in section.trios:
        if any(name in results.runs for name in trio):
            yield tables.claims(results, expected_accuracy(*trio), accuracy)
    if names:
        yield _figure("accuracy", section, cost_panels(results, names, times), figures)
        yield _times(times, names)
    yield "Accuracy in percent on the held-out tenth of the training images, by learning rate:"
    yield tables.searches(results, [name for trio in section.trios for name in trio])
    if names:
        yield from _robustness(section, results, names, records, figures)
    yield from _ablations(section, records)


def _robustness(
    section: Section,
    results: Results,
    names: Sequence[str],
    records: Sequence[Record],
    figures: dict[str, list[Panel]],
) -> Iterator[str]:
    yield "### Rotated images"
    yield "Accuracy in percent, as the mean over seeds."
    yield tables.rotations(results, names)
    trios = [trio for trio in section.trios if results.seeds(*trio)]
    for trio in trios:
        yield "Difference of the drops:"
        yield tables.claims(results, robustness(*trio), rotation_drop, lower=True)
    yield _figure("rotation", section, rotation_panels(results, names), figures)
    yield "### Attacked images"
    for trio in trios:
        yield from _attack(results, trio)
    yield _figure("attack", section, attack_panels(results, names), figures)
    yield from autoattack_section(results, names, records)
    yield from attention_section(results, names, records)


def _attack(results: Results, trio: tuple[str, str, str]) -> Iterator[str]:
    runs = [results.runs[name][seed] for seed in results.seeds(*trio) for name in trio]
    count = len(runs[0]["results"]["attack"]["labels"])
    common = [len(all_right(results.runs[name][seed] for name in trio)) for seed in results.seeds(*trio)]
    yield f"Success of the attack and accuracy under it, in percent of {count} validation images:"
    yield tables.attacks(results, trio, common=False)
    yield f"The same for those that all three networks classify correctly without an attack ({list_of(common)} images):"
    yield tables.attacks(results, trio, common=True)
    yield "Difference of the success, as the mean over all bounds and numbers of steps, of all images:"
    yield tables.claims(results, robustness(*trio), mean_success, lower=True)
    epsilon, steps = max(results.recipe["epsilons"]), max(results.recipe["attack_steps"])
    least = min(attack_success(run, epsilon, steps) for run in runs)
    other = sum(row["other_predictions"] for run in runs for row in run["results"]["attack"]["settings"])
    total = sum(count for run in runs for _ in run["results"]["attack"]["settings"])
    yield (
        f"Within {epsilon}/255, {steps} steps succeed on at least {number(least)} % of the images of every run"
        f"{'' if least == 100 else ': **not on 100 %**'}. The operators of training and of evaluation classify "
        f"{total - other:,} of {total:,} attacked images alike."
    )


def _ablations(section: Section, records: list[Record]) -> Iterator[str]:
    recipe = section.suite.ablations[0].recipe
    results = Results(records, recipe.name)
    for heading, ranks in ABLATIONS.items():
        variants = [name for rank in ranks for name in rank]
        if any(name in results.runs for name in variants[1:]):
            yield f"### {heading}"
            yield tables.ablation(results, ranks)
    command = f"`python -m experiments run --suite {section.suite.name} --ablations`"
    missing = [
        heading
        for heading, ranks in ABLATIONS.items()
        if not all(name in results.runs for rank in ranks for name in rank)
    ]
    if missing:
        yield f"Ablations **not run yet**, or only in part: {'; '.join(missing)}. {command} runs them at the end."


def _recipe(recipe: Recipe) -> str:
    per_class = "all" if recipe.images_per_class is None else f"{recipe.images_per_class}"
    rows = [
        ("images", f"{recipe.image_size} x {recipe.image_size}, from {recipe.source_size} x {recipe.source_size}"),
        ("training images of each class", per_class),
        ("epochs, batch", f"{recipe.epochs}, {recipe.batch}"),
        ("optimizer", f"SGD, momentum {recipe.momentum:g}, weight decay {recipe.weight_decay:g} on all parameters"),
        ("schedule", "cosine, without warm-up"),
        ("learning rates", list_of(f"{rate:g}" for rate in recipe.learning_rates)),
        ("epochs that choose one", f"{recipe.search_epochs}"),
        ("loss", f"cross entropy with label smoothing {recipe.label_smoothing:g}"),
        ("augmentation", "random resized crops (8 % to 100 %), flips"),
        ("attacked images of each class", f"{recipe.attacked_per_class}"),
    ]
    return table(["recipe", ""], rows)


def _not_run(section: Section, records: list[Record]) -> str:
    """What of the suite, without ablations, is not in the ledger."""
    runs = list_runs(section.suite)
    data = Results(records, section.recipe.name).data or ""
    left = [run for run in unfinished(runs, records, data) if run.purpose == RESULT]
    return "all of it" if len(left) == len([run for run in runs if run.purpose == RESULT]) else _listed(left)


def _listed(runs: Sequence[Run]) -> str:
    return "; ".join(run.title for run in runs)


def _figure(kind: str, section: Section, panels: list[Panel], figures: dict[str, list[Panel]]) -> str:
    name = f"evidence_{section.recipe.name}_{kind}.png"
    figures[name] = panels
    return f"![{section.heading}: {kind}]({FIGURES}/{name})"


def _times(times: Times, names: Sequence[str]) -> str:
    batches = times.batches(names)
    if not batches:
        return "Milliseconds: **not measured yet**. `python -m experiments time` measures them."
    rows = [[tables.title(name), *(f"{times.milliseconds(name, batch):.2f}" for batch in batches)] for name in names]
    headings = ["evaluation, ms an image", *(f"batch of {batch}" for batch in batches)]
    return f"Measured by `python -m experiments time` on {times.machine}:\n\n{table(headings, rows)}"


def write(page: Page, path: Path) -> None:
    """Write the page and draw its figures beside it."""
    for name, panels in page.figures.items():
        draw(path.parent / FIGURES / name, panels)
    with output_file(path) as partial:
        partial.write_text(page.text)
