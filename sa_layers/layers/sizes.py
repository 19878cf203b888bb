"""Checks of the integers that layers are constructed with."""

from __future__ import annotations

from ..ops.integers import integer


def positive(number: int, name: str) -> int:
    """Return a positive integer, or raise an error that names it.

    >>> positive(0, "stride")
    Traceback (most recent call last):
    ...
    ValueError: stride must be at least 1, got 0
    """
    number = integer(number, name)
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    return number


def odd(number: int, name: str) -> int:
    """Return a positive odd integer, or raise an error that names it.

    >>> odd(4, "kernel_size")
    Traceback (most recent call last):
    ...
    ValueError: kernel_size must be odd, so that there is a centre tap, got 4
    """
    if positive(number, name) % 2 == 0:
        raise ValueError(f"{name} must be odd, so that there is a centre tap, got {number}")
    return integer(number, name)


def divisor(number: int, name: str, total: int, total_name: str) -> int:
    """Return a positive integer that divides another, or raise an error that names both.

    >>> divisor(5, "num_heads", 64, "dim")
    Traceback (most recent call last):
    ...
    ValueError: num_heads must divide dim (64), got 5
    """
    if total % positive(number, name):
        raise ValueError(f"{name} must divide {total_name} ({total}), got {number}")
    return integer(number, name)
