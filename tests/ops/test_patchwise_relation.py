"""Patchwise relations, made of other operators: none of the extension is their own."""

from __future__ import annotations

import torch
from torch import Tensor

from sa_layers.ops import PATCHWISE_RELATIONS

from .operator_tester import OperatorTester, Options
from .problem import CORNERS, Problem


class TestPatchwiseRelation(OperatorTester):
    name = "patchwise_relation"
    options = tuple({"relation": relation} for relation in PATCHWISE_RELATIONS)
    kernel_sizes = (1, 3, 5)  # a clique of 49 taps has 2401 relations a pixel

    def operands(self, problem: Problem) -> tuple[Tensor, Tensor]:
        return problem.map(), problem.other_map()

    def linear_in(self, options: Options) -> tuple[tuple[int, ...], ...]:
        return ((0, 1),) if options["relation"] == "concatenation" else ((0,), (1,))

    def schemas(self, problem: Problem, device: torch.device, options: Options) -> dict[str, tuple]:
        return {}

    def test_refuses_tensors(self) -> None:
        self.refuses_tensors("query", "key")
        query, key = self.operands(CORNERS[0])
        self.refuses(ValueError, r"key must have the shape \(2, 4, 6, 7\) for query .*, got", query, key[:, :, 1:])
        words = r"relation must be one of concatenation, star, clique, got 'cosine'"
        self.refuses(ValueError, words, query, key, relation="cosine")
