"""Folding: parameters computed from other parameters, kept for as long as those stay what they are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import maybe_current_level  # torch.func has no such question
from typing_extensions import Self

State = tuple[int, int, tuple[int, ...]]
ORDINARY = {Tensor, nn.Parameter}


class Folded:
    """Tensors folded from a module's parameters and buffers, such as a frozen norm merged into a linear layer.

    They are computed at the first call and again whenever a source has changed: by an optimizer's step, by loading a
    state dict, by moving or converting the module, by an assignment. Copies and pickles of a module leave them behind.

    Args:
        compute: Makes the folded tensors from the sources, in the order in which they are given.

    Example:
        >>> scale = torch.ones(2)
        >>> double = Folded(lambda tensor: (2 * tensor,))
        >>> double([scale])
        (tensor([2., 2.]),)
        >>> _ = scale.add_(1)
        >>> double([scale])
        (tensor([4., 4.]),)
    """

    def __init__(self, compute: Callable[..., tuple[Tensor, ...]]) -> None:
        self.compute = compute
        self._states: tuple[State, ...] | None = None
        self._folded: tuple[Tensor, ...] = ()
        self._aliases: tuple[Tensor, ...] = ()

    def __call__(self, sources: Iterable[Tensor]) -> tuple[Tensor, ...]:
        """The folded tensors of ``sources``, without a gradient; remembered only for ordinary tensors."""
        sources = tuple(sources)
        states = None if torch.compiler.is_compiling() else _states(sources)
        if states is None:
            return self.compute(*sources)
        if states != self._states:
            # A tensor made in inference mode could not be saved for a later backward pass.
            with torch.no_grad(), torch.inference_mode(False):
                self._folded = self.compute(*(source.detach() for source in sources))
            # Aliases of the sources: while they live, no other tensor can be given their memory and pass for them.
            self._aliases = tuple(source.detach() for source in sources)
            self._states = states
        return self._folded

    def __deepcopy__(self, memo: dict[int, Any]) -> Folded:
        """A copy that remembers nothing."""
        return type(self)(copy.deepcopy(self.compute, memo))  # a method goes with the copy of its module

    def __reduce__(self) -> tuple:
        """Pickles ``compute`` alone."""
        return type(self), (self.compute,)


class FoldingModule(nn.Module):
    """Base of modules that fold: ``self._folded`` keeps what :meth:`_fold` computes, and :meth:`train` forgets it.

    Moving averages change ``parameter.data`` in place, which nothing tells, and call ``eval`` before they evaluate.
    """

    def __init__(self) -> None:
        super().__init__()
        self._folded = Folded(self._fold)

    def train(self, mode: bool = True) -> Self:
        """As of every module; what is folded is folded again."""
        self._folded = Folded(self._fold)
        return super().train(mode)

    def _fold(self, *sources: Tensor) -> tuple[Tensor, ...]:
        """The folded tensors."""
        raise NotImplementedError


def _states(tensors: tuple[Tensor, ...]) -> tuple[State, ...] | None:
    """What changes when the tensors' values may have, or None for tensors that do not tell.

    In-place changes count up a tensor's version; a conversion or a move gives it other memory. Fake, mapped and other
    wrapped tensors do not tell, nor do those of inference mode, which count no versions.
    """
    if not set(map(type, tensors)) <= ORDINARY or maybe_current_level() is not None:
        return None
    if any(map(Tensor.is_inference, tensors)):
        return None
    return tuple([(tensor.data_ptr(), tensor._version, tensor.stride()) for tensor in tensors])
