"""What a module and all below it were at one moment, and whether they still are.

This is asked before every evaluation, of hundreds of modules whose memory the last evaluation has driven from the
cache: so it looks at as little as tells, and compares whole lists in a few calls of C.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from operator import attrgetter, is_, itemgetter
from typing import Any

from torch import Tensor, nn
from torch._C._functorch import maybe_current_level  # torch.func has no such question

# What a module keeps in dictionaries of its own.
REGISTRIES = ("_modules", "_parameters", "_buffers", "_forward_hooks", "_forward_pre_hooks")
ORDINARY = {Tensor, nn.Parameter}
mode = itemgetter("training")
version = attrgetter("_version")


class Snapshot:
    """The modules below ``root``, their attributes and hooks, their parameters and buffers with their values' state.

    In-place changes count up a tensor's version; a conversion or a move gives it other memory. Of torch's own layers,
    whose options nobody assigns to, only the mode is compared, and whether there are more attributes, such as a
    ``forward`` of the instance's own.

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
        registries = [registry for names in self._names for registry in map(names.get, REGISTRIES)]
        self._registries: list[dict[str, Any]] = [registry for registry in registries if isinstance(registry, dict)]
        self._filled = list(filter(None, self._registries))
        self._attributes = [
            (names, dict(names))
            for module, names in zip(self._modules, self._names, strict=True)
            if names.get("_modules") or not type(module).__module__.startswith("torch.nn.modules.")
        ]
        self._tensors = [item for item in _values(self._filled) if isinstance(item, Tensor)]
        # Aliases of the tensors: while they live, no other can be given their memory and pass for them.
        self._aliases = [tensor.detach() for tensor in self._tensors]
        self.tells = (
            maybe_current_level() is None
            and len(self._registries) == len(registries)
            and set(map(type, self._tensors)) <= ORDINARY
            and not any(map(Tensor.is_inference, self._tensors))
        )
        """Whether changes would be noticed. Tensors of inference mode count no versions, fake, mapped and other wrapped
        ones have no memory of their own, scripted modules none of these dictionaries."""
        self._structure = self._read_structure() if self.tells else None
        self._registered = _values(self._filled)
        self._states = self._read_states() if self.tells else None

    def holds(self) -> bool:
        """Whether nothing has changed."""
        try:
            return (
                self._read_structure() == self._structure
                and all(map(is_, _values(self._filled), self._registered))
                and all(names == before for names, before in self._attributes)
                and self._read_states() == self._states
            )
        except (RuntimeError, ValueError):  # an attribute that is now another tensor or array cannot be compared so
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
        return [list(map(Tensor.data_ptr, tensors)), list(map(version, tensors)), list(map(Tensor.stride, tensors))]


def _values(registries: Iterable[dict[str, Any]]) -> list[Any]:
    return [*chain.from_iterable(map(dict.values, registries))]
