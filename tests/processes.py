"""Which tests start processes: they are marked ``process``, and left out of ``make check``."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

import pytest


def starts_processes(item: pytest.Function) -> bool:
    """Whether a test, its fixtures or the helpers of their modules name the ``subprocess`` module."""
    definitions = item._fixtureinfo.name2fixturedefs
    fixtures = (definition for name in item.fixturenames for definition in definitions.get(name, ()))
    return any(_names_subprocess(function) for function in (item.function, *(fixture.func for fixture in fixtures)))


@functools.cache
def _names_subprocess(function: Callable[..., Any]) -> bool:
    """Follow the global names that a function mentions, as far as the functions of the tests go."""
    pending, seen = [function], set()
    while pending:
        current = pending.pop()
        current = getattr(current, "__wrapped__", current)
        current = getattr(current, "__func__", current)
        if not isinstance(current, FunctionType) or current in seen:
            continue
        seen.add(current)
        for name in _names(current.__code__):
            value = current.__globals__.get(name)
            if value is subprocess:
                return True
            if str(getattr(value, "__module__", None)).startswith("tests."):
                pending += vars(value).values() if isinstance(value, type) else [value]
    return False


def _names(code: CodeType) -> Iterator[str]:
    """The names in a function and in the functions within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
