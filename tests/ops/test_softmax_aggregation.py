"""Softmax over the footprint, then aggregation."""

from __future__ import annotations

import torch
from torch import Tensor

from sa_layers import ops

from .operator_tester import OperatorTester, Options
from .problem import CORNERS, Problem


class TestSoftmaxAggregation(OperatorTester):
    name = "softmax_aggregation"

    def operands(self, problem: Problem) -> tuple[Tensor, Tensor]:
        return problem.map(), problem.weight()

    def linear_in(self, options: Options) -> tuple[tuple[int, ...], ...]:
        return ((0,),)

    def schemas(self, problem: Problem, device: torch.device, options: Options) -> dict[str, tuple]:
        value, logits = self.place_operands(problem, device, torch.float32)
        fixed = value.detach(), logits.detach()  # derivatives of its gradients are made of other operators
        output, logsumexp = torch.ops.sa_layers.softmax_aggregation(*fixed, *problem.footprint)
        grad = torch.randn_like(output)
        return {
            "softmax_aggregation": (value, logits, *problem.footprint),
            "softmax_aggregation_value_gradient": (grad, fixed[1], logsumexp, *problem.size, *problem.footprint),
            "softmax_aggregation_logits_gradient": (grad, *fixed, output, logsumexp, *problem.footprint),
        }

    def test_a_constant_map_is_its_own_average(self, place: torch.device) -> None:
        """Whatever the logits, at the border too: reflection reads nothing but the map."""
        for problem in CORNERS:
            value, logits = self.place_operands(problem, place)
            output = ops.softmax_aggregation(torch.full_like(value, 3.0), 10 * logits, **problem.arguments)
            torch.testing.assert_close(output, torch.full_like(output, 3.0))

    def test_large_logits_do_not_overflow(self, place: torch.device) -> None:
        value, logits = self.place_operands(CORNERS[0], place, torch.float32)
        for shift in 1e4, -1e4:
            shifted = ops.softmax_aggregation(value, logits.round() + shift, **CORNERS[0].arguments)
            torch.testing.assert_close(shifted, ops.softmax_aggregation(value, logits.round(), **CORNERS[0].arguments))

    def test_refuses_tensors(self) -> None:
        self.refuses_tensors("value", "logits")
        value, logits = self.operands(CORNERS[0])
        words = r"logits must have the shape \(2, Cw, 9, 42\) for value .*, got"
        self.refuses(ValueError, words, value, logits[:, :, 1:])
