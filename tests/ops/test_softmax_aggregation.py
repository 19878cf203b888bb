"""Softmax over the footprint, then aggregation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sa_layers import ops

from .operator_tester import OperatorTester, Options
from .problem import CORNERS, Problem, lay_out


class TestSoftmaxAggregation(OperatorTester):
    name = "softmax_aggregation"
    options = tuple({"groups": groups} for groups in ops.GROUPS)
    padding_modes = ops.ALL_PADDING_MODES

    def operands(self, problem: Problem) -> tuple[Tensor, Tensor]:
        return problem.map(), problem.weight()

    def linear_in(self, options: Options) -> tuple[tuple[int, ...], ...]:
        return ((0,),)

    def schemas(self, problem: Problem, device: torch.device, options: Options) -> dict[str, tuple]:
        value, logits = self.place_operands(problem, device, torch.float32)
        geometry = (*problem.footprint, options["groups"])
        fixed = value.detach(), logits.detach()  # derivatives of its gradients are made of other operators
        output, *softmax = torch.ops.sa_layers.softmax_aggregation(*fixed, *geometry)
        grad, taps_first = torch.randn_like(output), lay_out(fixed[1], "transposed")  # whose gradient has its layout
        return {
            "softmax_aggregation": (value, logits, *geometry),
            "softmax_aggregation_value_gradient": (grad, fixed[1], *softmax, *problem.size, *geometry),
            "softmax_aggregation_logits_gradient": (grad, fixed[0], taps_first, *softmax, *geometry),
        }

    def test_a_constant_map_is_its_own_average(self, place: torch.device) -> None:
        """Whatever the logits, at the border too: reflection reads nothing but the map."""
        for problem in CORNERS:
            value, logits = self.place_operands(problem, place)
            output = ops.softmax_aggregation(torch.full_like(value, 3.0), 10 * logits, **problem.arguments)
            torch.testing.assert_close(output, torch.full_like(output, 3.0))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
    @pytest.mark.parametrize("offset", [1e3, -1e5, 1e7])
    def test_an_offset_of_the_logits_costs_no_accuracy(
        self, place: torch.device, offset: float, dtype: torch.dtype
    ) -> None:
        """Neither of the output nor of a gradient."""
        if dtype == torch.float16:
            offset = max(-3e4, min(offset, 3e4))
        for problem in CORNERS:
            value, logits = self.place_operands(problem, place, dtype)
            self.check(problem, self.options[0], (value, 4 * logits + offset), "contiguous")

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
    def test_an_average_of_large_numbers_is_finite(self, place: torch.device, dtype: torch.dtype) -> None:
        """Weighted sums are taken of normalized weights, or of weights that are small enough."""
        for problem in CORNERS:
            value, logits = self.place_operands(problem, place, dtype)
            large = torch.full_like(value, torch.finfo(dtype).max * 0.9)
            output = ops.softmax_aggregation(large, logits, **problem.arguments)
            torch.testing.assert_close(output, large.detach()[..., :1, :1].expand_as(output), rtol=1e-2, atol=0)

    def test_refuses_tensors(self) -> None:
        self.refuses_tensors("value", "logits")
        value, logits = self.operands(CORNERS[0])
        words = r"logits must have the shape \(2, Cw, 9, 42\) for value .*, got"
        self.refuses(ValueError, words, value, logits[:, :, 1:])
        self.refuses(ValueError, "groups must be one of interleaved, contiguous, got None", value, logits, groups=None)
