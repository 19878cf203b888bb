"""Tables and numbers in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .intervals import Interval

MINUS, PLUS_MINUS = "\u2212", "\u00b1"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose columns are aligned to the right, except the first.

    >>> print(table(["network", "accuracy"], [["SAN10", "70.1"]]))
    | network | accuracy |
    |---|---:|
    | SAN10 | 70.1 |
    """
    lines = [f"| {' | '.join(headings)} |", f"|---|{'---:|' * (len(headings) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def number(value: float, sign: bool = False) -> str:
    """Write a number with one decimal, and a real minus sign.

    >>> number(1.25), number(2, sign=True)
    ('1.2', '+2.0')
    """
    rounded = round(value, 1) + 0.0  # without a negative zero
    return f"{rounded:+.1f}".replace("-", MINUS) if sign else f"{rounded:.1f}".replace("-", MINUS)


def with_interval(value: Interval | None, sign: bool = False) -> str:
    """Write a mean with half the width of its interval.

    >>> with_interval(Interval(70.0, 1.5, 3)), with_interval(Interval(70.0, None, 1)), with_interval(None)
    ('70.0 ± 1.5', '70.0 (one seed)', 'not run yet')
    """
    if value is None:
        return "not run yet"
    if value.half_width is None:
        return f"{number(value.mean, sign)} (one seed)"
    return f"{number(value.mean, sign)} {PLUS_MINUS} {number(value.half_width)}"


def list_of(values: Iterable[object]) -> str:
    """Join values as in a sentence.

    >>> list_of([2, 4, 8])
    '2, 4 and 8'
    """
    texts = [str(value) for value in values]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
