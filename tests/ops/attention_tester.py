"""What the tests of both attentions add to those of every operator: a mapping, and two ways to compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from sa_layers import ops

from .attention_problem import convert
from .operator_tester import OperatorTester, Options
from .problem import CORNERS, Problem, arguments


class AttentionTester(OperatorTester):
    """The tests of a whole attention: fused where no gradient is required, unfused otherwise."""

    autocast_tolerance = 1e-2  # the unfused mapping is a matrix product, which autocast rounds

    def parameters(self, problem: Problem, options: Options) -> dict[str, Any]:
        """Relation, mapping, position and epilogue for a problem, float64 on the CPU."""
        raise NotImplementedError

    def by_reference(self, **arguments: Any) -> NDArray:
        """The output for the operator's own arguments according to the reference."""
        raise NotImplementedError

    def operands(self, problem: Problem) -> tuple[Tensor, ...]:
        return problem.map(), problem.other_map(), problem._replace(seed=problem.seed + 2).map()

    def linear_in(self, options: Options) -> tuple[tuple[int, ...], ...]:
        return () if options["epilogue"] else ((2,),)

    def function(self, problem: Problem, options: Options) -> Callable[..., Tensor]:
        operator, parameters = getattr(ops, self.name), self.parameters(problem, options)

        def function(*maps: Tensor) -> Tensor:
            device, dtype = maps[0].device, torch.promote_types(maps[0].dtype, torch.float32)
            here = {name: convert(item, device, dtype) for name, item in parameters.items()}
            return operator(*maps, **here, **problem.arguments)

        return function

    def call_with(self, *operands: Any, **changes: Any) -> Tensor:
        parameters = self.parameters(CORNERS[0], self.options[0])
        return getattr(ops, self.name)(*operands, **parameters | CORNERS[0].arguments | changes)

    def check(self, problem: Problem, options: Options, operands: tuple[Tensor, ...], grad_layout: str) -> None:
        """Compares both ways with the reference, which has no gradients: gradcheck tests those."""
        maps = dict(zip(("query", "key", "value"), operands, strict=True))
        expected = self.by_reference(**maps, **self.parameters(problem, options), **problem.arguments)
        function = self.function(problem, options)
        for required in (True, False):
            output = function(*(item.detach().requires_grad_(required) for item in operands))
            assert output.requires_grad == required
            self.compare(output, operands[0], expected)

    @pytest.mark.variants(2)
    @pytest.mark.backends("native", "torch")
    def test_gradients_of_the_parameters(self, place: torch.device, options: Options) -> None:
        """Of the mapping, the position and the epilogue."""
        problem = Problem(1, 1, 2, (2, 3), arguments(3, (2, 1)))
        maps = [item.detach() for item in self.place_operands(problem, place)]
        parameters = convert_values(self.parameters(problem, options), place)
        leaves = [leaf.requires_grad_() for leaf in tensors(list(parameters.values()))]

        def function(*_: Tensor) -> Tensor:
            return getattr(ops, self.name)(*maps, **parameters, **problem.arguments)

        output = function()
        direction = torch.ones_like(output).cumsum(-1)
        gradients = torch.autograd.grad((output * direction).sum(), leaves)
        for leaf, gradient in zip(leaves, gradients, strict=True):
            change = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(0), dtype=leaf.dtype).to(place)
            with torch.no_grad():
                leaf += 1e-6 * change
                ahead = (function() * direction).sum()
                leaf -= 2e-6 * change
                difference = ahead - (function() * direction).sum()
                leaf += 1e-6 * change
            torch.testing.assert_close((gradient * change).sum(), difference / 2e-6, rtol=1e-5, atol=1e-5)


def convert_values(parameters: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The parameters in float64 on a device, as leaves of the graph."""
    return {name: convert(item, device, torch.float64) for name, item in parameters.items()}


def tensors(item: Any) -> list[Tensor]:
    """All tensors in a structure of lists and named tuples."""
    if isinstance(item, Tensor):
        return [item]
    return [tensor for part in item for tensor in tensors(part)] if isinstance(item, list | tuple) else []
