"""Plans as text: an expression that makes the plan from a list of tensors.

A plan consists of named tuples, numbers, strings and tensors. Its ``repr``, in which each tensor is replaced by an item
of a list, describes it completely and is the same in every process. Under torch.compile, the operator of evaluation
takes the text as a constant and the tensors as inputs.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

CONSTANTS = (bool, int, float, str)
SYNTAX: tuple[type[ast.AST], ...] = (
    ast.Expression,
    ast.Name,
    ast.Load,
    ast.Call,
    ast.keyword,
    ast.Constant,
    ast.List,
    ast.Tuple,
    ast.Dict,
    ast.Subscript,
    ast.UnaryOp,
    ast.USub,
)
"""All that the ``repr`` of a plan consists of."""


class Description(NamedTuple):
    """A plan as text."""

    text: str
    tensors: list[Tensor]
    """What the text calls ``t[0]``, ``t[1]``, ..., each tensor once."""


class Language:
    """Descriptions of plans that consist of the given classes.

    Args:
        *classes: Named tuples and data classes.

    Example:
        >>> class Layer(NamedTuple):
        ...     weight: Tensor
        ...     bias: Tensor | None
        >>> import torch
        >>> language = Language(Layer)
        >>> described = language.describe(Layer(torch.ones(1), None))
        >>> described.text
        'Layer(weight=t[0], bias=None)'
        >>> language.restore(described.text, [torch.zeros(1)])
        Layer(weight=tensor([0.]), bias=None)
    """

    def __init__(self, *classes: type) -> None:
        self._classes = {kind.__name__: kind for kind in classes}
        self._maker = functools.lru_cache(maxsize=256)(self._compile)

    def describe(self, plan: Any) -> Description | None:
        """Return the description of a plan, or None if it contains anything else, such as a module to be called."""
        tensors: list[Tensor] = []
        items: dict[int, _Item] = {}

        def described(part: Any) -> Any:
            if isinstance(part, Tensor):
                if id(part) not in items:
                    items[id(part)] = _Item(len(tensors))
                    tensors.append(part)
                return items[id(part)]
            kind = type(part)
            if self._classes.get(kind.__name__) is kind:
                if dataclasses.is_dataclass(part):
                    fields = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
                    return kind(**{name: described(value) for name, value in fields.items()})
                return kind(*map(described, part))
            if kind in (list, tuple):
                return kind(map(described, part))
            if kind is dict:
                return {described(key): described(value) for key, value in part.items()}
            if part is not None and not isinstance(part, CONSTANTS):
                raise _IndescribableError
            return part if part is None else next(base for base in CONSTANTS if isinstance(part, base))(part)

        try:
            return Description(repr(described(plan)), tensors)
        except _IndescribableError:
            return None

    def restore(self, text: str, tensors: Sequence[Tensor]) -> Any:
        """Make the plan that a text describes, with these tensors.

        Raises:
            ValueError: If the text is not a description in this language. Nothing of it is executed then, so a program
                from an untrusted file cannot call anything but the classes of the language.
        """
        return self._maker(text)(tensors)

    def _compile(self, text: str) -> Callable[[Sequence[Tensor]], Any]:
        names = {"inf": math.inf, **self._classes}
        try:
            tree = ast.parse(text, mode="eval")
        except SyntaxError as error:
            raise ValueError(f"text must describe a plan, got {text!r}") from error
        for node in ast.walk(tree):
            allowed = isinstance(node, SYNTAX)
            if isinstance(node, ast.Name):
                allowed = node.id in names or node.id == "t"
            elif isinstance(node, ast.Call):
                allowed = isinstance(node.func, ast.Name) and node.func.id in self._classes
            elif isinstance(node, ast.Subscript):
                allowed = isinstance(node.value, ast.Name) and node.value.id == "t"
            if not allowed:
                raise ValueError(f"text must describe a plan, got {ast.unparse(node)!r} in it")
        made: Callable[[Sequence[Tensor]], Any] = eval(f"lambda t: {text}", {"__builtins__": {}, **names})
        return made


class _IndescribableError(Exception):
    """Part of a plan is not data."""


class _Item:
    """A tensor in a text."""

    def __init__(self, index: int) -> None:
        self._index = index

    def __repr__(self) -> str:
        return f"t[{self._index}]"
