"""The structure of a module: the objects of which it consists, without the values of its tensors.

Whether a module is eligible and which objects its plan reads depends on the structure alone. Values are read anew at
every call, so no write to a tensor can make a plan wrong.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from ..ops.torch_internals import CONTENTS, HOOKS

Plan = TypeVar("Plan")
CONTAINERS = (nn.Sequential, nn.ModuleList)  # whatever is in them is called
MUTABLE = (list, dict, set)
_dtype = operator.attrgetter("dtype")
_own = frozenset(vars(nn.Module()))


class Structure:
    """The modules below ``root``: their types, attributes, parameters, buffers and numbers of hooks.

    Of a tensor, its identity; of a weight also its type, dtype, device and number of elements. Lists, dictionaries and
    sets that are attributes are compared by their items.

    The comparison runs before every evaluation, for hundreds of modules that the last evaluation has evicted from the
    cache. It therefore compares whole lists in a few calls that are implemented in C.

    Args:
        root: The module. The structure does not keep it alive.

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
        modules = list(root.modules())
        self._root, self._below = ref(root), modules[1:]
        self._attributes = [vars(module) for module in modules]
        self._attributes_before = list(map(dict, self._attributes))
        registries = [
            (module, registry)
            for module in modules
            for name in CONTENTS
            if isinstance(registry := vars(module).get(name), dict)
        ]
        self._registries = [registry for module, registry in registries if registry or isinstance(module, CONTAINERS)]
        self._names, self._contents = list(chain.from_iterable(self._registries)), list(_values(self._registries))
        own = [(names, name, value) for names in self._attributes for name, value in names.items() if name not in _own]
        self._plain = [item for item in own if isinstance(item[2], Tensor)]
        self._mutable = [value for *_, value in own if isinstance(value, MUTABLE)]
        self._mutable_before = [value.copy() for value in self._mutable]
        self._hooks = [hooks for names in self._attributes for name in HOOKS if (hooks := names.get(name)) is not None]
        self._counts = list(map(len, self._hooks))
        self._types = list(map(type, self._below))
        self.tensors = [value for value in self._contents if isinstance(value, Tensor)]
        """All parameters, buffers, and tensors that are other attributes."""
        self.tensors += [value for *_, value in self._plain]
        self._weights = [tensor for tensor in self.tensors if tensor.dim() > 1]
        self._kinds = self._read_kinds()
        self._root_type = type(root)
        self._norms: list[Any] = [module for module in modules if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm)]

    def is_trained(self, features: Sequence[Tensor]) -> bool:
        """Whether a call with these features computes gradients or batch statistics."""
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in chain(features, self.tensors)):
            return True
        return self.uses_batch_statistics()

    def uses_batch_statistics(self) -> bool:
        """Whether a norm normalises by the statistics of its input."""
        return any(norm.training or norm.running_mean is None for norm in self._norms)

    def why_not_trained(self) -> str | None:
        """One sentence on why the norms cannot be trained, or None; torch's own norm raises an error then."""
        kept = (value for norm in self._norms for value in (norm.running_mean, norm.running_var) if value is not None)
        if torch.is_grad_enabled() and any(value.requires_grad for value in kept):
            return "running statistics require a gradient"
        return None

    def holds(self, root: nn.Module) -> bool:
        """Whether this is still the structure of ``root``."""
        try:
            return (
                self._root() is root
                and type(root) is self._root_type
                and list(map(type, self._below)) == self._types
                and self._attributes == self._attributes_before
                and list(chain.from_iterable(self._registries)) == self._names
                and all(map(operator.is_, _values(self._registries), self._contents))
                and all(names[name] is value for names, name, value in self._plain)
                and self._mutable == self._mutable_before
                and list(map(len, self._hooks)) == self._counts
                and self._read_kinds() == self._kinds
            )
        except (RuntimeError, ValueError):  # an attribute is now another tensor or array, which == compares by element
            return False

    def _read_kinds(self) -> list[list[Any]]:
        """What of a weight decides about its kernel. Norms are read by torch's operators, whatever they are."""
        weights = self._weights
        return [list(map(read, weights)) for read in (type, _dtype, Tensor.get_device, Tensor.numel)]


def _values(registries: Iterable[dict[str, Any]]) -> Iterable[Any]:
    return chain.from_iterable(map(dict.values, registries))


class Plans(Generic[Plan]):
    """The plans of modules, each kept while the module exists and has the structure for which the plan was made.

    They are kept beside the modules, not in them: copies, pickles and replicas start without one, and a module that is
    no longer used is freed at once.
    """

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[nn.Module, tuple[Structure, Plan]] = WeakKeyDictionary()

    def get(self, module: nn.Module) -> tuple[Structure, Plan] | None:
        """The structure and the plan that was kept for this module, or None."""
        kept = self._kept.get(module)
        return kept if kept is not None and kept[0].holds(module) else None

    def keep(self, module: nn.Module, structure: Structure, plan: Plan) -> tuple[Structure, Plan]:
        """Keep and return a plan that was made for the module while it had the structure."""
        self._kept[module] = structure, plan
        return structure, plan
