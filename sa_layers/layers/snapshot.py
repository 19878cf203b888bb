"""What a module and all below it were at one moment, and whether they still are.

This is asked before every evaluation, of hundreds of modules: so it compares whole lists, in a few calls of C.
"""

from __future__ import annotations

from itertools import chain
from operator import attrgetter, is_
from typing import Any

from torch import Tensor, nn

# What a module keeps in dictionaries of its own.
REGISTERED = ("_modules", "_parameters", "_buffers", "_forward_hooks", "_forward_pre_hooks")
ORDINARY = {Tensor, nn.Parameter}
version = attrgetter("_version")


class Snapshot:
    """The modules below ``root``, their attributes and hooks, their parameters and buffers with their values' state.

    In-place changes count up a tensor's version; a conversion or a move gives it other memory.

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
        self._types = list(map(type, self._modules))
        self._attributes = [dict(vars(module)) for module in self._modules]
        registries = [names.get(name) for names in self._attributes for name in REGISTERED]
        self._registries = [registry for registry in registries if isinstance(registry, dict)]
        self._registered = self._all_registered()
        self._tensors = [item for item in self._registered if isinstance(item, Tensor)]
        # Aliases of the tensors: while they live, no other can be given their memory and pass for them.
        self._aliases = [tensor.detach() for tensor in self._tensors]
        self.tells = (
            len(self._registries) == len(registries)
            and set(map(type, self._tensors)) <= ORDINARY
            and not any(map(Tensor.is_inference, self._tensors))
        )
        """Whether changes would be noticed. Tensors of inference mode count no versions, fake, mapped and other wrapped
        ones have no memory of their own, scripted modules none of these dictionaries."""
        self._states = self._all_states() if self.tells else None

    def holds(self) -> bool:
        """Whether nothing has changed."""
        try:
            return (
                list(map(vars, self._modules)) == self._attributes
                and self._is_registered(self._all_registered())
                and list(map(type, self._modules)) == self._types
                and self._all_states() == self._states
            )
        except (RuntimeError, ValueError):  # an attribute that is now another tensor or array cannot be compared so
            return False

    def _all_registered(self) -> list[Any]:
        return [*chain.from_iterable(map(dict.values, self._registries))]

    def _is_registered(self, registered: list[Any]) -> bool:
        return len(registered) == len(self._registered) and all(map(is_, registered, self._registered))

    def _all_states(self) -> list[list[Any]]:
        tensors = self._tensors
        return [
            list(map(Tensor.data_ptr, tensors)),
            list(map(version, tensors)),
            list(map(Tensor.stride, tensors)),
        ]
