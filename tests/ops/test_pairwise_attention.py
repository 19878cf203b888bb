"""Pairwise attention, whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from sa_layers.ops import PAIRWISE_RELATIONS, AffineReLU, PairPosition

from .attention_problem import convert
from .attention_tester import AttentionTester
from .operator_tester import Options
from .pairwise_problem import by_reference, make_mapping
from .problem import CORNERS, Problem


class TestPairwiseAttention(AttentionTester):
    name = "pairwise_attention"
    options = tuple(
        {"relation": relation, "position": position, "layers": layers, "epilogue": epilogue}
        for relation, position, layers, epilogue in zip(
            PAIRWISE_RELATIONS,
            ("relative", "absolute", None, "sized", None),
            (2, 1, 3, 2, 2),
            (None, "epilogue", None, "epilogue", None),
            strict=True,
        )
    )

    def parameters(self, problem: Problem, options: Options) -> dict[str, Any]:
        normal, channels = problem.normal, problem.weight_channels * problem.share
        relation, position, last = options["relation"], None, None
        if options["position"] == "absolute":
            zeros, matrix = torch.zeros(2, 3, dtype=torch.float64), normal(2, 3)
            position = PairPosition(torch.cat([matrix, zeros]), torch.cat([zeros, matrix]))
        elif options["position"]:
            size = (5, 9) if options["position"] == "sized" else None
            position = PairPosition(normal(2, 3), -normal(2, 3), size)
        positions = 0 if position is None else len(position.query)
        mapping = make_mapping(normal, relation, channels, positions, problem.weight_channels, options["layers"])
        if options["epilogue"]:
            last = AffineReLU(normal(channels), normal(channels, 1)[:, 0])
        return {"relation": relation, "mapping": mapping, "position": position, "epilogue": last}

    def by_reference(self, **arguments: Any) -> NDArray:
        return by_reference(**arguments)

    def schemas(self, problem: Problem, device: torch.device, options: Options) -> dict[str, tuple]:
        maps = [item.detach() for item in self.place_operands(problem, device, torch.float32)]
        parameters = self.parameters(problem, options)
        mapping, position, last = (
            convert(parameters[name], device, torch.float32) for name in ("mapping", "position", "epilogue")
        )
        keywords = {
            "query_position": position and position.query,
            "key_position": position and position.key,
            "position_size": list(position.size) if position and position.size else [],
            "output_scale": last and last.scale,
            "output_shift": last and last.shift,
            "relation": options["relation"],
            "allow_tf32": False,
        }
        keywords |= problem.footprint._asdict()
        return {"pairwise_attention": (*maps, *mapping[:2], *map(list, mapping[2:]), keywords)}

    def test_refuses_tensors(self) -> None:
        self.refuses_tensors("query", "key", "value")
        query, key, value = self.operands(CORNERS[0])
        self.refuses(ValueError, r"key must have the shape \(2, 4, 6, 7\) for query", query, key[:, 1:], value)
        self.refuses(ValueError, r"divides the channels of value \(3\), got 2", query, key, value[:, 1:])
        self.refuses(TypeError, "query and value must have the same dtype", query, key, value.float())
        words = "relation must be one of subtraction, .* got 'cosine'"
        self.refuses(ValueError, words, query, key, value, relation="cosine")

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"scale": torch.zeros(5)}, ValueError, r"mapping.scale must have the shape \(6\)"),
            ({"scale": torch.zeros(6)}, TypeError, "mapping.scale must be torch.float64 for features of"),
            ({"weights": [torch.zeros(2, 5)] * 2}, ValueError, r"mapping.weights\[0\] must have the shape \(out, 6\)"),
            ({"weights": [], "biases": []}, ValueError, "mapping must have one to 3 weights and as many biases, got 0"),
        ],
    )
    def test_refuses_mappings(self, change: dict[str, Any], error: type[Exception], message: str) -> None:
        mapping = self.parameters(CORNERS[0], self.options[0])["mapping"]._replace(**change)
        self.refuses(error, message, *self.operands(CORNERS[0]), mapping=mapping)

    def test_refuses_positions_and_epilogues(self) -> None:
        maps, matrix = self.operands(CORNERS[0]), torch.zeros(5, 3, dtype=torch.float64)
        self.refuses(ValueError, "position must have at most 4", *maps, position=PairPosition(matrix, matrix))
        epilogue = AffineReLU(matrix.new_zeros(4), matrix.new_zeros(3))
        self.refuses(ValueError, "epilogue.shift must have the shape", *maps, epilogue=epilogue)


def test_a_direct_call_cannot_read_out_of_bounds() -> None:
    maps = [torch.zeros(1, 4, 5, 5) for _ in range(3)]
    vector, matrix = torch.zeros(4), torch.zeros(2, 4)
    keywords: dict[str, Any] = {
        "query_position": None,
        "key_position": None,
        "position_size": [],
        "output_scale": None,
        "output_shift": None,
        "relation": "subtraction",
        "kernel_size": [3, 3],
        "stride": [1, 1],
        "dilation": [1, 1],
        "padding_mode": "reflect",
        "allow_tf32": False,
    }

    def call(shift: Tensor, weight: Tensor, bias: Tensor) -> None:
        torch.ops.sa_layers.pairwise_attention(*maps, vector, shift, [weight], [bias], **keywords)

    with pytest.raises(RuntimeError, match=r"shift must have the shape \(4\), got \(5\)"):
        call(torch.zeros(5), matrix, torch.zeros(2))
    with pytest.raises(RuntimeError, match="weights must have the dtype"):
        call(vector, matrix.double(), torch.zeros(2))
    with pytest.raises(RuntimeError, match="value must have a multiple of the 3 channels of the weights, got 4"):
        call(vector, torch.zeros(3, 4), torch.zeros(3))
