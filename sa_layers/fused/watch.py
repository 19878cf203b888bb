"""What torch.compile sees of a module with a fused path: one object, whose attributes it checks at every call.

Otherwise it would trace the hundreds of modules of a network, which takes most of the time of a compilation, and check
a guard for each at every call, which takes longer than :class:`Structure`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from torch import Tensor, nn

from ..ops.torch_internals import STATIC_SIZES, is_written_by_traced_code, must_be_one_graph
from .evaluation.operator import LANGUAGE
from .structure import MUTABLE

if TYPE_CHECKING:
    from .module import FusedModule


class Described(nn.Module):
    """What torch.compile has to know about a module's fused path.

    Args:
        plan: The plan, or the sentence of ``why_not_eligible``.
    """

    def __init__(self, plan: Any) -> None:
        super().__init__()
        description = None if isinstance(plan, str) else LANGUAGE.describe(plan)
        self.is_eligible = not isinstance(plan, str)
        self.text: str | None = None if description is None else description.text
        """The plan; None if it contains modules that must be called, or if there is none."""
        self.tensors: Sequence[Tensor] = [] if description is None else description.tensors
        """The tensors of the plan."""


setattr(Described, STATIC_SIZES, True)


class Watch(ModuleType):
    """A module as torch.compile sees it.

    It is a Python module, as :class:`sa_layers.ops.switch.Switch` is: torch.compile reads the attributes of a Python
    module when it compiles and again, as a guard, at every call, and does not trace its properties. So every call
    checks the structure of the module, as eager calls do, and a changed structure is compiled again.

    Args:
        module: The module. It is not kept alive.
    """

    def __init__(self, module: FusedModule[Any]) -> None:
        super().__init__("watch")
        self._module = ref(module)
        self._plan: Any = None
        self._described: Described | None = None
        self._training_plan: Any = None
        self._has_unfused_parts = False

    @property
    @torch.compiler.disable  # compiled code reads this, and torch.compile would compile whatever it calls
    def evaluation(self) -> Described:
        """The path of evaluation; the same object as long as the module has the same structure."""
        plan, _ = self._watched().current_plan()
        if self._described is None or plan is not self._plan:
            self._plan, self._described = plan, Described(plan)
        return self._described

    @property
    @torch.compiler.disable
    def needs_gradient(self) -> bool:
        """Whether a tensor of the module requires a gradient."""
        return any(tensor.requires_grad for tensor in self._watched().current_plan()[1])

    @property
    @torch.compiler.disable
    def uses_batch_statistics(self) -> bool:
        """Whether a norm of the module normalises by the statistics of its input."""
        return self._watched().training_structure().uses_batch_statistics()

    @property
    @torch.compiler.disable
    def is_trainable(self) -> bool:
        """Whether the module takes the fused path of training with all its parts."""
        module = self._watched()
        plan, structure = module.current_training_plan()
        if isinstance(plan, str) or structure.why_not_trained() is not None:
            return False
        if plan is not self._training_plan:
            self._training_plan, self._has_unfused_parts = plan, module.why_not_parts(training=True) is not None
        return not self._has_unfused_parts

    def objects(self) -> Iterator[Any]:
        """All objects of which the structure of the module consists."""
        for module in self._watched().modules():
            yield module
            yield vars(module)
            yield from (value for value in vars(module).values() if isinstance(value, MUTABLE))

    def _watched(self) -> FusedModule[Any]:
        module = self._module()
        if module is None:
            raise AttributeError("the module no longer exists")
        return module


@torch.compiler.assume_constant_result  # of the code that is being traced
def is_written(watch: Watch) -> bool:
    """Whether the code that torch.compile is tracing has written an attribute of the module.

    The write happens only when the compiled code runs, so the module itself does not show it yet.
    """
    return is_written_by_traced_code(watch.objects())


@torch.compiler.assume_constant_result
def may_leave_graph() -> bool:
    """Whether the code that torch.compile is tracing may contain calls that are not traced."""
    return not must_be_one_graph()


@torch.compiler.disable
def call_untraced(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function as it is called without torch.compile, between two graphs."""
    return function(*arguments)
