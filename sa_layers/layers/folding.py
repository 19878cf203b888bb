"""Folding: parameters computed from other parameters, kept for as long as those stay what they are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor as is_functorch_wrapped  # torch.func has no such question
from typing_extensions import Self

State = tuple[int, int, torch.dtype, torch.device, tuple[int, ...]]


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
        if torch.compiler.is_compiling() or not all(map(_tells_its_state, sources)):
            return self.compute(*sources)
        states = tuple(_state(source) for source in sources)
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


def _tells_its_state(tensor: Tensor) -> bool:
    """False for fake, mapped and other wrapped tensors, and for those of inference mode, which count no versions."""
    return type(tensor) in (Tensor, nn.Parameter) and not tensor.is_inference() and not is_functorch_wrapped(tensor)


def _state(tensor: Tensor) -> State:
    """What changes when the tensor's values may have: in-place changes count up its version."""
    return tensor.data_ptr(), tensor._version, tensor.dtype, tensor.device, tensor.stride()
