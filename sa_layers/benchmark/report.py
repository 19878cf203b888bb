"""What a benchmark found: a table in the terminal, Markdown, JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where else the results go."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to FILE")


class Column(NamedTuple):
    """A column of the table: the key of its values in every row, its heading, and how a value is written."""

    key: str
    heading: str
    write: Callable[[Any], str] = str


class Report:
    """Rows of figures under one title, in sections.

    Args:
        title: What was measured.
        machine: What it was measured on, :func:`.machine.describe`.
        columns: What the tables show; the JSON file has every key of every row.
        section: The keys that name a section; rows of one section follow one another.
        notes: Sentences to read the tables by.

    Example:
        >>> report = Report("Sums", {"device": "abacus"}, [Column("way", "way"), Column("s", "time", duration)], ["of"])
        >>> report.rows.append({"of": "ten numbers", "way": "by hand", "s": 0.0123})
        >>> print(report.markdown())
        # Sums
        <BLANKLINE>
        device abacus
        <BLANKLINE>
        ## ten numbers
        <BLANKLINE>
        | way | time |
        |---|---:|
        | by hand | 12.3 ms |
    """

    def __init__(
        self,
        title: str,
        machine: dict[str, object],
        columns: list[Column],
        section: list[str],
        notes: tuple[str, ...] = (),
    ) -> None:
        self.title, self.machine, self.columns, self.section, self.notes = title, machine, columns, section, notes
        self.rows: list[Row] = []

    def print(self) -> None:
        """Prints the tables; as Markdown where rich is not installed."""
        try:
            from rich.console import Console
            from rich.table import Table
        except ImportError:
            print(self.markdown())
            return
        console = Console()
        console.print(f"[bold]{self.title}[/bold]  {self._machine()}", highlight=False)
        for heading, rows in self._sections():
            table = Table(title=heading, title_justify="left")
            for index, column in enumerate(self.columns):
                table.add_column(column.heading, justify="right" if index else "left")
            for row in rows:
                table.add_row(*self._cells(row))
            console.print(table)
        for note in self.notes:
            console.print(note, highlight=False)

    def markdown(self) -> str:
        """The same tables in Markdown."""
        lines = [f"# {self.title}", "", self._machine()]
        for heading, rows in self._sections():
            lines += ["", f"## {heading}", "", f"| {' | '.join(column.heading for column in self.columns)} |"]
            lines.append(f"|---|{'---:|' * (len(self.columns) - 1)}")
            lines += [f"| {' | '.join(self._cells(row))} |" for row in rows]
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines)

    def write_json(self, path: Path) -> None:
        """Writes every figure, in seconds, bytes and FLOP/s."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"title": self.title, "machine": self.machine, "results": self.rows, "notes": self.notes}
        path.write_text(json.dumps(content, indent=2) + "\n")

    def _machine(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.machine.items())

    def _sections(self) -> Iterator[tuple[str, list[Row]]]:
        for names, rows in groupby(self.rows, lambda row: [str(row[key]) for key in self.section]):
            yield ", ".join(names), list(rows)

    def _cells(self, row: Row) -> list[str]:
        return ["" if row.get(column.key) is None else column.write(row[column.key]) for column in self.columns]


def duration(seconds: float) -> str:
    """A time with a unit of its size.

    >>> duration(0.000512), duration(2.5)
    ('512 us', '2.5 s')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def size(number: int) -> str:
    """An amount of memory with a unit of its size, decimal.

    >>> size(4_917_248), size(800)
    ('4.92 MB', '800 B')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number} B"


def rate(per_second: float) -> str:
    """FLOP/s with a unit of their size.

    >>> rate(3.91e10)
    '39.1 GFLOP/s'
    """
    return f"{per_second / 1e12:.3g} TFLOP/s" if per_second >= 1e12 else f"{per_second / 1e9:.3g} GFLOP/s"


def ratio(number: float) -> str:
    """How many times as much.

    >>> ratio(51.66), ratio(1)
    ('51.7x', '1x')
    """
    return f"{number:.3g}x"


def percentage(share: float) -> str:
    """A share of one.

    >>> percentage(0.7)
    '70 %'
    """
    return f"{100 * share:.0f} %"
