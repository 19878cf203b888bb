"""A setting that a ``with`` block changes for its own context, which is that of a thread or an asyncio task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Generic, TypeVar

import torch

Value = TypeVar("Value")


class Switch(ModuleType, Generic[Value]):
    """A default, and the values of the ``with`` blocks that the current context is in.

    A module, because torch.compile cannot trace a context variable and would trace the property of any other object.
    The attributes of a module it reads, when it compiles and again as a guard at every call, so a change compiles anew.

    Args:
        name: For debugging.
        default: The value outside all blocks.

    Example:
        >>> colour = Switch("colour", "red")
        >>> with colour.switched_to("blue"):
        ...     colour.value
        'blue'
        >>> colour.value
        'red'
    """

    def __init__(self, name: str, default: Value) -> None:
        super().__init__(name)
        self._default = default
        self._blocks: ContextVar[tuple[_Block[Value], ...]] = ContextVar(name, default=())

    @property
    def value(self) -> Value:
        """The value of the innermost block of this context."""
        if blocks := self._blocks.get():
            for block in reversed(blocks):
                if block.is_open:
                    return block.value
        return self._default

    @value.setter
    def value(self, value: Value) -> None:
        """Set the value for the rest of the context; torch.compile writes so what a block that it traced has left."""
        if value != self.value:
            self._blocks.set((_Block(value),))

    @contextmanager
    def switched_to(self, value: Value) -> Iterator[None]:
        """Set the value inside the block.

        What starts with a copy of the context, such as an asyncio task, keeps the value until it ends.
        """
        if torch.compiler.is_dynamo_compiling():
            before, self.value = self.value, value
            try:
                yield
            finally:
                self.value = before
            return
        block = _Block(value)
        token = self._blocks.set((*self._blocks.get(), block))
        try:
            yield
        finally:
            blocks = self._blocks.get()
            try:
                self._blocks.reset(token)
            except ValueError:  # another context than the block was entered in: a generator was passed on and closed
                block.is_open = False
            # Blocks need not be left in the reverse order: two generators may each be in one.
            self._blocks.set(tuple(other for other in blocks if other is not block))


class _Block(Generic[Value]):
    """A block that was entered."""

    def __init__(self, value: Value) -> None:
        self.value = value
        self.is_open = True
