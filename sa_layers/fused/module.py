"""The base of modules that have fused paths for evaluation and for training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ..ops.checks import without_autocast
from ..ops.torch_internals import is_traced_by_dynamo
from .channels_last import is_channels_last
from .eligibility import why_not_this_call
from .evaluation.operator import Evaluation, evaluate
from .evaluation.parameters import Parameters
from .originals import why_not_original
from .structure import Plans, Structure
from .watch import Watch, is_written, may_leave_graph

Made = TypeVar("Made", bound="FusedModule[Any]")
Plan = TypeVar("Plan")
TRAINING_DEVICES = {"cpu"}
_plans: Plans[Any] = Plans()
_training_plans: Plans[Any] = Plans()  # a plan, why there is none, or None before a training step


class FusedModule(nn.Module, Generic[Plan]):
    """Base of modules that are computed by fused operators, if they are eligible.

    A subclass defines :meth:`why_not_eligible`, :meth:`plan` and :meth:`plan_training`. Its ``forward`` returns what
    :meth:`evaluated` computes, executes the plan of training if :meth:`trained` returns one, and otherwise calls its
    modules. A plan is kept while the module has the same :class:`Structure`: it refers to modules, parameters and
    buffers, and contains no value of one.
    """

    __slots__ = ("_watch",)  # outside the module's dictionary, so no copy or state has it
    _watch: Watch

    def __new__(cls: type[Made], *arguments: Any, **keywords: Any) -> Made:
        """Make a module, or the copy of one."""
        module = super().__new__(cls)
        object.__setattr__(module, "_watch", Watch(module))
        return module

    def why_not_eligible(self, training: bool = False) -> str | None:
        """One sentence on why the modules must be called, from their structure alone, or None.

        Args:
            training: Whether gradients or batch statistics are computed. Defaults to False.
        """
        raise NotImplementedError

    def plan(self, parameters: Parameters) -> Plan:
        """Return what the fused path executes, with its kernels chosen.

        Called only if the module is eligible and the backend is native.

        Args:
            parameters: Collects the norms and positions, to which the plan refers by number.
        """
        raise NotImplementedError

    def plan_training(self) -> Any:
        """Return what the fused path of training executes. Called only if the module is eligible for it."""
        raise NotImplementedError

    def trained(self, *features: Tensor) -> Any:
        """The plan of training, or None if nothing is trained or the modules must be called."""
        if torch.compiler.is_compiling() or self._why_not_trained(features) is not None:
            return None
        structure, plan = self._kept_for_training()
        if not structure.is_trained(features) or structure.why_not_trained() is not None:
            return None
        plan = self._training_plan(structure, plan)
        return None if isinstance(plan, str) else plan

    def training_structure(self) -> Structure:
        """The structure of the module, without the plan of training, which evaluation does not need."""
        return self._kept_for_training()[0]

    def current_training_plan(self) -> tuple[Any, Structure]:
        """The plan of training, or the sentence of :meth:`why_not_eligible`; and the structure of the module."""
        structure, plan = self._kept_for_training()
        return self._training_plan(structure, plan), structure

    def _kept_for_training(self) -> tuple[Structure, Any]:
        return _training_plans.get(self) or _training_plans.keep(self, Structure(self), None)

    def _training_plan(self, structure: Structure, plan: Any) -> Any:
        if plan is None:
            plan = self.why_not_eligible(training=True) or self.plan_training()
            _training_plans.keep(self, structure, plan)
        return plan

    def is_trained_untraced(self, *features: Tensor) -> bool:
        """Whether torch.compile is tracing a call that would take the fused path of training, and need not trace it.

        The path has a backward pass of its own, updates running statistics and communicates with other processes. So
        the call is made between two graphs, as it is without torch.compile.
        """
        if not is_traced_by_dynamo() or not may_leave_graph() or is_written(self._watch):
            return False
        if self._why_not_trained(features) is not None or self.why_not_accepted(features, training=True) is not None:
            return False
        watch = self._watch
        if not watch.uses_batch_statistics:
            needed = watch.needs_gradient or any(tensor.requires_grad for tensor in features)
            if not (torch.is_grad_enabled() and needed):
                return False
        return watch.is_trainable

    def _why_not_trained(self, features: Iterable[Tensor]) -> str | None:
        """What keeps a call from the fused path of training, whatever the module's structure."""
        features = list(features)
        if isinstance(features[0], Tensor) and features[0].device.type not in TRAINING_DEVICES:
            return f"training is not fused on {features[0].device.type}"
        return why_not_original() or why_not_this_call(features, training=True)

    def evaluated(self, *maps: Tensor, channels_last: bool | None = None) -> list[Tensor] | None:
        """Compute the outputs by the fused path of evaluation.

        Under torch.compile, one operator computes them, of which only inputs and outputs are traced.

        Args:
            *maps: The features with which the module is called, (N, C, H, W), in the dtype of its parameters.
            channels_last: Whether the outputs are channels last. Defaults to None, for the memory format of the first
                map, which its caller may rely on.

        Returns:
            New tensors, (N, C, H, W), or None if the modules must be called.
        """
        if why_not_this_call(maps) is not None or why_not_original() is not None:
            return None
        if channels_last is None:
            channels_last = is_channels_last(maps[0])
        if is_traced_by_dynamo() and not is_written(self._watch):
            described = self._watch.evaluation
            if not described.is_eligible or (torch.is_grad_enabled() and self._watch.needs_gradient):
                return None
            if described.text is not None:
                return evaluate(list(maps), described.tensors, described.text, channels_last)
        if (planned := self._planned()) is None:
            return None
        with without_autocast(maps[0].device):
            return planned.compute(maps, channels_last)

    def planned(self, *maps: Tensor) -> Evaluation | None:
        """The plan of evaluation, or None if the call must call the modules."""
        return self._planned() if why_not_this_call(maps) is None and why_not_original() is None else None

    def _planned(self) -> Evaluation | None:
        if torch.is_grad_enabled() and _requires_grad(self.parameters()):
            return None
        plan, tensors = self.current_plan()
        if isinstance(plan, str) or (torch.is_grad_enabled() and _requires_grad(tensors)):
            return None
        return plan

    def current_plan(self) -> tuple[str | Evaluation, Iterable[Tensor]]:
        """The plan, or the sentence of :meth:`why_not_eligible`; and the tensors of the module."""
        if torch.compiler.is_compiling():
            plan = self.make_plan()
            return plan, () if isinstance(plan, str) else _tensors_in(plan)
        kept = _plans.get(self)
        if kept is None:
            structure = Structure(self)  # before the plan, should another thread change the module now
            kept = _plans.keep(self, structure, self.make_plan())
        structure, plan = kept
        return plan, structure.tensors

    def why_not_fused(self, *features: Tensor) -> str | None:
        """One sentence on why the modules would be called one by one, or None if fused operators are used instead.

        Of a block or a stage, also a sentence if only the attention in it is unfused.

        Args:
            *features: The tensors that the layer would be called with; for an attention layer query, key and value.

        Example:
            >>> from sa_layers.layers import PairwiseSelfAttention
            >>> features = torch.zeros(1, 8, 5, 5)
            >>> PairwiseSelfAttention(8, 8, 3, mapping_layers=3).why_not_fused(features, features, features)
            'the mapping does not consist of two linear layers, each after a norm and an activation'
        """
        structure = Structure(self)
        tensors = [*features, *structure.tensors]
        if structure.is_trained(features):
            obstacle = self._why_not_trained(tensors) or self.why_not_eligible(training=True)
            obstacle = obstacle or structure.why_not_trained()
            return obstacle or self.why_not_accepted(features, training=True) or self.why_not_parts(training=True)
        obstacle = why_not_original() or self.why_not_eligible() or why_not_this_call(tensors)
        return obstacle or self.why_not_accepted(features) or self.why_not_parts()

    def why_not_accepted(self, features: Sequence[Tensor], training: bool = False) -> str | None:
        """What keeps the fused path from reading these features, or None."""
        return None

    def why_not_parts(self, training: bool = False) -> str | None:
        """One sentence on a part that would be called while the rest is fused, or None."""
        return None

    def make_plan(self) -> str | Evaluation:
        """Make the plan of evaluation, or return why the module is not eligible."""
        parameters = Parameters()
        if obstacle := self.why_not_eligible():
            return obstacle
        plan: Any = self.plan(parameters)
        return Evaluation(plan, parameters)


def _requires_grad(tensors: Iterable[Tensor]) -> bool:
    return any(tensor.requires_grad for tensor in tensors)


def _tensors_in(item: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples and lists."""
    if isinstance(item, Tensor):
        yield item
    elif isinstance(item, Parameters):
        yield from item.tensors()
    elif isinstance(item, tuple | list):
        for part in item:
            yield from _tensors_in(part)
