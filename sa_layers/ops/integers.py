"""Integers as arguments: Python's, NumPy's and those of tensors without dimensions."""

from __future__ import annotations

import operator
from typing import Any


def integer(value: Any, name: str) -> int:
    """Return an integer of any type as Python's.

    Args:
        value: The integer; a truth value is none.
        name: The argument's name, for the message.

    Raises:
        TypeError: It is not an integer.

    Example:
        >>> import torch
        >>> integer(torch.tensor(3), "share")
        3
    """
    if is_integer(value):
        return operator.index(value)
    raise TypeError(f"{name} must be an integer, got {value!r}")


def integers(values: Any) -> tuple[int, ...] | None:
    """Return a tuple, list, range or array of integers as a tuple of Python's, or None for anything else.

    Example:
        >>> import torch
        >>> integers(range(2)), integers(torch.tensor([1, 2])), integers("12"), integers(3)
        ((0, 1), (1, 2), None, None)
    """
    if is_integer(values) or isinstance(values, str | bytes | dict | set) or not hasattr(values, "__len__"):
        return None
    items = tuple(values)
    return tuple(map(operator.index, items)) if all(map(is_integer, items)) else None


def is_integer(value: Any) -> bool:
    """Whether a value is an integer of any type; a truth value is none.

    Example:
        >>> is_integer(3), is_integer(True), is_integer(3.0)
        (True, False, False)
    """
    if isinstance(value, int):
        return not isinstance(value, bool)
    if "bool" in str(getattr(value, "dtype", "")):
        return False
    try:
        operator.index(value)
    except TypeError:
        return False
    return True
