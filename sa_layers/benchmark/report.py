"""Reports of benchmark results: tables in the terminal, Markdown and JSON."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from ..output_file import make_parent, output_file

Row = dict[str, Any]
WIDTH = 160  # of tables that are printed to a file or a pipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for output files."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all results to FILE as JSON")


class Column(NamedTuple):
    """A column of a table: the key of its values in the rows, its heading, and the function that formats a value."""

    key: str
    heading: str
    format: Callable[[Any], str] = str


class Report:
    """A title, rows of results grouped into sections, and notes.

    Args:
        title: Title of the report.
        machine: Description of the machine, as returned by :func:`.machine.describe`.
        columns: Columns of the tables. A table lacks those without a value. The JSON file contains every key of every
            row.
        section: Keys whose values, in rows that have them, name a section. Each section is one table. Its rows must be
            consecutive.
        notes: Explanations printed below the tables.

    Example:
        >>> columns = [Column("name", "implementation"), Column("s", "time", duration)]
        >>> report = Report("Sums", {"device": "abacus"}, columns, ["of"])
        >>> report.rows.append({"of": "ten numbers", "name": "by hand", "s": 0.0123})
        >>> print(report.markdown())
        # Sums
        <BLANKLINE>
        device abacus
        <BLANKLINE>
        ## ten numbers
        <BLANKLINE>
        | implementation | time |
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
        """Print the tables with rich, or as Markdown if rich is not installed."""
        try:
            from rich.console import Console
            from rich.table import Table
        except ImportError:
            print(self.markdown())
            return
        console = Console()
        if not console.is_terminal and "COLUMNS" not in os.environ:
            console = Console(width=WIDTH)
        console.print(f"[bold]{self.title}[/bold]  {self._machine()}", highlight=False)
        for heading, rows in self._sections():
            table, columns = Table(title=heading, title_justify="left"), self._columns(rows)
            for index, column in enumerate(columns):
                table.add_column(column.heading, justify="right" if index else "left")
            for row in rows:
                table.add_row(*_cells(row, columns))
            console.print(table)
        for note in self.notes:
            console.print(note, highlight=False)

    def markdown(self) -> str:
        """Return the report as Markdown."""
        lines = [f"# {self.title}", "", self._machine()]
        for heading, rows in self._sections():
            columns = self._columns(rows)
            lines += ["", f"## {heading}", "", f"| {' | '.join(column.heading for column in columns)} |"]
            lines.append(f"|---|{'---:|' * (len(columns) - 1)}")
            lines += [f"| {' | '.join(_cells(row, columns))} |" for row in rows]
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines)

    def write_json(self, path: Path) -> None:
        """Write the report as JSON, with times in seconds, memory in bytes and speeds in FLOP/s.

        Raises:
            OutputError: If the file cannot be written.
        """
        make_parent(path)
        content = {"title": self.title, "machine": self.machine, "results": self.rows, "notes": self.notes}
        with output_file(path) as partial:
            partial.write_text(json.dumps(content, indent=2) + "\n")

    def heading(self, row: Row) -> str:
        """Return the heading of the section of a row."""
        return ", ".join(str(row[key]) for key in self.section if key in row)

    def _machine(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.machine.items())

    def _sections(self) -> Iterator[tuple[str, list[Row]]]:
        for heading, rows in groupby(self.rows, self.heading):
            yield heading, list(rows)

    def _columns(self, rows: list[Row]) -> list[Column]:
        return [column for column in self.columns if any(row.get(column.key) is not None for row in rows)]


def _cells(row: Row, columns: list[Column]) -> list[str]:
    return ["" if row.get(column.key) is None else column.format(row[column.key]) for column in columns]


def duration(seconds: float) -> str:
    """Format a time in s, ms or us.

    >>> duration(0.000512), duration(2.5)
    ('512 us', '2.5 s')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def size(number: int) -> str:
    """Format a number of bytes in GB, MB, kB or B (decimal units).

    >>> size(4_917_248), size(800)
    ('4.92 MB', '800 B')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number} B"


def rate(per_second: float) -> str:
    """Format a speed in TFLOP/s or GFLOP/s.

    >>> rate(3.91e10)
    '39.1 GFLOP/s'
    """
    return f"{per_second / 1e12:.3g} TFLOP/s" if per_second >= 1e12 else f"{per_second / 1e9:.3g} GFLOP/s"


def ratio(number: float) -> str:
    """Format a ratio.

    >>> ratio(51.66), ratio(1)
    ('51.7x', '1x')
    """
    return f"{number:.3g}x"


def percentage(share: float) -> str:
    """Format a fraction as a percentage.

    >>> percentage(0.7)
    '70 %'
    """
    return f"{100 * share:.0f} %"
