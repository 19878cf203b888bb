"""Pairwise relations."""

from __future__ import annotations

import torch
from torch import Tensor

from sa_layers.ops import ALL_PADDING_MODES, PAIRWISE_RELATIONS, pairwise_relation

from .operator_tester import OperatorTester, Options
from .problem import CORNERS, Problem


class TestPairwiseRelation(OperatorTester):
    name = "pairwise_relation"
    padding_modes = ALL_PADDING_MODES
    options = tuple({"relation": relation} for relation in PAIRWISE_RELATIONS)

    def operands(self, problem: Problem) -> tuple[Tensor, Tensor]:
        return problem.map(), problem.other_map()

    def linear_in(self, options: Options) -> tuple[tuple[int, ...], ...]:
        return ((0,), (1,)) if options["relation"] in ("hadamard", "dot") else ((0, 1),)

    def schemas(self, problem: Problem, device: torch.device, options: Options) -> dict[str, tuple]:
        query, key = self.place_operands(problem, device, torch.float32)
        grad = torch.randn_like(pairwise_relation(query, key, **problem.arguments, **options)).requires_grad_()
        kernel_size, *rest = problem.footprint
        geometry = (kernel_size, options["relation"], *rest)
        return {
            "pairwise_relation": (query, key, *geometry),
            "pairwise_relation_query_gradient": (grad, key, *problem.size, *geometry),
            "pairwise_relation_key_gradient": (grad, query, *problem.size, *geometry),
        }

    def test_refuses_tensors(self) -> None:
        self.refuses_tensors("query", "key")
        query, key = self.operands(CORNERS[0])
        self.refuses(ValueError, r"key must have the shape \(2, 4, 6, 7\) for query .*, got", query, key[:, :, 1:])
        words = r"relation must be one of subtraction, summation, hadamard, dot, concatenation, got 'cosine'"
        self.refuses(ValueError, words, query, key, relation="cosine")
