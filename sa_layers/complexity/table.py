"""Text tables with aligned columns."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Format rows as a table. The first ``left`` columns are left-aligned and the others right-aligned.

    Example:
        >>> print(table([["network", "parameters"], ["SAN10", "10"]]))
        network  parameters
        SAN10            10
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
