"""Keyword arguments that a module passes on to the modules inside, checked before it does."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Iterable
from typing import Any


def check_keywords(module: object, checked_by: type, given: Iterable[str], accepted: Collection[str]) -> None:
    """Check keyword arguments that a constructor collects by ``**``, so that its class is named in the error.

    Args:
        module: Module that is constructed. Its class is the one that the user called.
        checked_by: Class whose constructor calls this function.
        given: Names of the collected arguments.
        accepted: Names that are allowed.

    Raises:
        TypeError: A name is not allowed. The message suggests a similar one and lists all.

    Example:
        >>> class Layer:
        ...     def __init__(self, channels, **options):
        ...         check_keywords(self, Layer, options, ["relation", "share"])
        >>> Layer(8, relaton="dot")
        Traceback (most recent call last):
        ...
        TypeError: Layer has no argument 'relaton', did you mean 'relation'? Its arguments are channels, relation, share
    """
    for name in given:
        if name not in accepted:
            explicit = [*_explicit(type(module)), *_explicit(checked_by)]
            known = list(dict.fromkeys([*explicit, *accepted]))
            similar = difflib.get_close_matches(name, known, n=1)
            raise TypeError(
                f"{type(module).__name__} has no argument {name!r}"
                + (f", did you mean {similar[0]!r}? Its" if similar else "; its")
                + f" arguments are {', '.join(known)}"
            )


def keywords(module_type: type, without: Collection[str] = ()) -> list[str]:
    """Return the names of the arguments of a class, with those that its constructor passes on to its bases.

    Args:
        module_type: Class.
        without: Names to leave out. Defaults to none.

    Example:
        >>> from torch import nn
        >>> keywords(nn.Linear, without=["device", "dtype"])
        ['in_features', 'out_features', 'bias']
    """
    names: list[str] = []
    for base in module_type.__mro__:
        if "__init__" in vars(base):
            names += [name for name in _explicit(base) if name not in (*names, *without)]
            if not any(item.kind is inspect.Parameter.VAR_KEYWORD for item in _parameters(base)):
                break
    return names


def _explicit(module_type: type) -> list[str]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [item.name for item in _parameters(module_type) if item.kind in named]


def _parameters(module_type: type) -> list[inspect.Parameter]:
    constructor: Any = module_type.__init__  # type: ignore[misc]
    return list(inspect.signature(constructor).parameters.values())[1:]
