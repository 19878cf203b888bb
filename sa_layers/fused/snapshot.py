"""The state of a module and all modules below it at one moment, and whether it has changed since.

The comparison runs before every evaluation, for hundreds of modules that the last evaluation has evicted from the
cache. It therefore reads as little as is needed, and compares whole lists in a few calls that are implemented in C.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from operator import is_, itemgetter
from typing import Any

from torch import Tensor, nn

from ..ops.torch_internals import MODULE_REGISTRIES, is_functorch_active, version_of

ORDINARY = {Tensor, nn.Parameter}
mode = itemgetter("training")


class Snapshot:
    """The modules below ``root``, their attributes and hooks, and the versions of their parameters and buffers.

    An in-place operation increments a tensor's version; a conversion or a move gives it other memory. The options of
    torch's own layers are not compared, only their mode and the number of their attributes, which an overridden
    ``forward`` changes.

    Args:
        root: The module.

    Example:
        >>> module = nn.Sequential(nn.BatchNorm2d(2))
        >>> snapshot = Snapshot(module)
        >>> snapshot.holds()
        True
        >>> _ = module.eval()
        >>> snapshot.holds()
        False
    """

    def __init__(self, root: nn.Module) -> None:
        self._modules = list(root.modules())
        self._names = list(map(vars, self._modules))
        registries = [registry for names in self._names for registry in map(names.get, MODULE_REGISTRIES)]
        self._registries: list[dict[str, Any]] = [registry for registry in registries if isinstance(registry, dict)]
        self._filled = list(filter(None, self._registries))
        self._attributes = [
            (names, dict(names))
            for module, names in zip(self._modules, self._names, strict=True)
            if names.get("_modules") or not type(module).__module__.startswith("torch.nn.modules.")
        ]
        self._tensors = [item for item in _values(self._filled) if isinstance(item, Tensor)]
        # Aliases of the tensors: while they exist, no other tensor can be allocated at the same address.
        self._aliases = [tensor.detach() for tensor in self._tensors]
        self.is_reliable = (
            not is_functorch_active()
            and len(self._registries) == len(registries)
            and set(map(type, self._tensors)) <= ORDINARY
            and not any(map(Tensor.is_inference, self._tensors))
        )
        """Whether changes would be found. Tensors of inference mode have no versions, fake, mapped and other wrapped
        tensors have no memory of their own, and scripted modules lack these dictionaries."""
        self._structure = self._read_structure() if self.is_reliable else None
        self._registered = _values(self._filled)
        self._states = self._read_states() if self.is_reliable else None

    def holds(self) -> bool:
        """Whether nothing has changed."""
        try:
            return (
                self._read_structure() == self._structure
                and all(map(is_, _values(self._filled), self._registered))
                and all(names == before for names, before in self._attributes)
                and self._read_states() == self._states
            )
        except (RuntimeError, ValueError):  # an attribute is now another tensor or array, which == compares by element
            return False

    def _read_structure(self) -> list[list[Any]]:
        return [
            list(map(type, self._modules)),
            list(map(len, self._names)),
            list(map(mode, self._names)),
            list(map(len, self._registries)),
        ]

    def _read_states(self) -> list[list[Any]]:
        tensors = self._tensors
        return [list(map(Tensor.data_ptr, tensors)), list(map(version_of, tensors)), list(map(Tensor.stride, tensors))]


def _values(registries: Iterable[dict[str, Any]]) -> list[Any]:
    return [*chain.from_iterable(map(dict.values, registries))]
