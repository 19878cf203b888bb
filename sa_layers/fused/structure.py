"""The structure of a module: the objects of which it consists, without the values of its tensors.

Whether a module is eligible and which objects its plan reads depends on the structure alone. Values are read anew at
every call, so no write to a tensor can make a plan wrong.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from torch import nn
from typing_extensions import Self

from ..ops.torch_internals import CONTENTS, HOOKS

Plan = TypeVar("Plan")


class Structure:
    """The modules below ``root``: their types, attributes, parameters, buffers and numbers of hooks.

    The comparison runs before every evaluation, for hundreds of modules that the last evaluation has evicted from the
    cache. It therefore compares whole lists in a few calls that are implemented in C.

    Args:
        root: The module.

    Example:
        >>> module = nn.Sequential(nn.BatchNorm2d(2))
        >>> structure = Structure(module)
        >>> _ = nn.init.ones_(module[0].weight)
        >>> structure.holds(module)
        True
        >>> module[0].eps = 0.1
        >>> structure.holds(module)
        False
    """

    def __init__(self, root: nn.Module) -> None:
        self._modules = list(root.modules())
        attributes = [vars(module) for module in self._modules]
        contents = [names.get(name) for names in attributes for name in CONTENTS]
        self._names = [*attributes, *(registry for registry in contents if isinstance(registry, dict) and registry)]
        self._hooks = [registry for names in attributes for name in HOOKS if (registry := names.get(name)) is not None]
        self._before = [dict(names) for names in self._names]
        self._counts = list(map(len, self._hooks))
        self._types = list(map(type, self._modules))

    def holds(self, root: nn.Module) -> bool:
        """Whether this is still the structure of ``root``."""
        try:
            return (
                self._modules[0] is root
                and self._names == self._before
                and list(map(len, self._hooks)) == self._counts
                and list(map(type, self._modules)) == self._types
            )
        except (RuntimeError, ValueError):  # an attribute is now another tensor or array, which == compares by element
            return False


class Planned(Generic[Plan]):
    """A plan, kept while the structure is the one for which it was made. Copies and pickles are empty."""

    def __init__(self) -> None:
        self._kept: tuple[Structure, Plan] | None = None

    def get(self, module: nn.Module) -> Plan | None:
        """The plan that was kept for this module, or None."""
        kept = self._kept
        return kept[1] if kept is not None and kept[0].holds(module) else None

    def keep(self, module: nn.Module, plan: Plan) -> None:
        """Keep a plan that was made for the module as it is now."""
        self._kept = Structure(module), plan

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """An empty copy, for the copy of the module."""
        return type(self)()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles nothing of the plan."""
        return type(self), ()
