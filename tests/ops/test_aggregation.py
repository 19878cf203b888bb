"""Aggregation."""

from __future__ import annotations

import torch
from torch import Tensor

from sa_layers import ops

from .operator_tester import OperatorTester, Options
from .problem import CORNERS, Problem


class TestAggregation(OperatorTester):
    name = "aggregation"
    options = tuple({"groups": groups} for groups in ops.GROUPS)
    padding_modes = ops.ALL_PADDING_MODES

    def operands(self, problem: Problem) -> tuple[Tensor, Tensor]:
        return problem.map(), problem.weight()

    def linear_in(self, options: Options) -> tuple[tuple[int, ...], ...]:
        return (0,), (1,)

    def schemas(self, problem: Problem, device: torch.device, options: Options) -> dict[str, tuple]:
        value, weight = self.place_operands(problem, device, torch.float32)
        grad = torch.randn_like(value[:, :, :: problem.footprint.stride[0], :: problem.footprint.stride[1]])
        grad = grad.contiguous().requires_grad_()
        geometry = (*problem.footprint, options["groups"])
        return {
            "aggregation": (value, weight, *geometry),
            "aggregation_value_gradient": (grad, weight, *problem.size, *geometry),
            "aggregation_weight_gradient": (
                grad,
                value,
                problem.weight_channels,
                *problem.footprint,
                options["groups"],
            ),
        }

    def test_refuses_tensors(self) -> None:
        self.refuses_tensors("value", "weight")
        value, weight = self.operands(CORNERS[0])
        words = r"weight must have the shape \(2, Cw, 9, 42\) for value .*, got"
        self.refuses(ValueError, words, value, weight[:, :, 1:])
        self.refuses(ValueError, "groups must be one of interleaved, contiguous, got 1", value, weight, groups=1)
        words = r"weight must have a number of channels that divides those of value \(4\), got 3"
        self.refuses(ValueError, words, value, torch.cat([weight, weight], 1)[:, :3])
