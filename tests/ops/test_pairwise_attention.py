"""Pairwise attention, whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from sa_layers.ops import PAIRWISE_RELATIONS, AffineReLU, MappingLayer, PairPosition
from sa_layers.ops.mapping_layer import operands_of

from .attention_problem import convert, make_mapping
from .attention_tester import AttentionTester
from .operator_tester import Options
from .pairwise_problem import by_reference, mapping_widths
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
        widths = mapping_widths(relation, channels, positions, problem.weight_channels, options["layers"])
        if options["epilogue"]:
            last = AffineReLU(normal(channels), normal(channels, 1)[:, 0])
        return {"relation": relation, "mapping": make_mapping(normal, widths), "position": position, "epilogue": last}

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
        return {"pairwise_attention": (*maps, *operands_of(mapping), keywords)}

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
            ({"scale": torch.zeros(9)}, ValueError, r"mapping\[{}\].scale must have the shape \({}\)"),
            ({"shift": torch.zeros(9)}, ValueError, r"mapping\[{}\].shift must have the shape \({}\)"),
            ({"weight": torch.zeros(2, 9)}, ValueError, r"mapping\[{}\].weight must have the shape \(out, {}\)"),
            ({"bias": torch.zeros(9)}, ValueError, r"mapping\[{}\].bias must have the shape \(.\) for its weight"),
            ({"scale": torch.float32}, TypeError, r"mapping\[{}\].scale must be torch.float64 for features of"),
            ({"weight": torch.float16}, TypeError, r"mapping\[{}\].weight must be torch.float64 for features of"),
            ({"bias": "meta"}, ValueError, r"mapping\[{}\].bias must be on the device of query, cpu, got meta"),
        ],
    )
    @pytest.mark.parametrize("index", [0, 1])
    def test_refuses_layers(self, index: int, change: dict[str, Any], error: type[Exception], message: str) -> None:
        """The change is another tensor, or another dtype or device of the same."""
        mapping = self.parameters(CORNERS[0], self.options[0])["mapping"]
        layer, ((name, other),) = mapping[index], change.items()
        changed = other if isinstance(other, Tensor) else getattr(layer, name).to(other)
        mapping[index] = layer._replace(**{name: changed})
        message = message.format(index, len(layer.scale))
        self.refuses(error, message, *self.operands(CORNERS[0]), mapping=mapping)

    @pytest.mark.parametrize("mapping", [[], [MappingLayer(*[torch.zeros(1)] * 4)] * 4, [torch.zeros(6)] * 4], ids=len)
    def test_refuses_other_lists(self, mapping: list[Any]) -> None:
        message = f"mapping must consist of one to 3 MappingLayer, got {len(mapping)} items"
        self.refuses(ValueError, message, *self.operands(CORNERS[0]), mapping=mapping)

    def test_refuses_positions_and_epilogues(self) -> None:
        maps, matrix = self.operands(CORNERS[0]), torch.zeros(5, 3, dtype=torch.float64)
        self.refuses(ValueError, "position must have at most 4", *maps, position=PairPosition(matrix, matrix))
        epilogue = AffineReLU(matrix.new_zeros(4), matrix.new_zeros(3))
        self.refuses(ValueError, "epilogue.shift must have the shape", *maps, epilogue=epilogue)


KEYWORDS: dict[str, Any] = {
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scales": torch.zeros(5)}, r"scales must have the shape \(4\), got \(5\)"),
        ({"shifts": torch.zeros(5)}, r"shifts must have the shape \(4\), got \(5\)"),
        ({"shifts": torch.zeros(4).double()}, "shifts must have the dtype"),
        ({"weights": torch.zeros(2, 4).double()}, "weights must have the dtype"),
        ({"weights": torch.zeros(2, 4).half()}, "weights must have the dtype"),
        ({"weights": torch.zeros(4)}, r"weights must have 2 dimensions, got the shape \(4\)"),
        ({"weights": torch.zeros(2, 4, 1, 2)}, r"weights must have the shape \(2, 4\), got \(2, 4, 1, 2\)"),
        ({"weights": torch.zeros(2, 3)}, r"weights must have the shape \(2, 4\), got \(2, 3\)"),
        ({"weights": torch.zeros(0, 4)}, "weights must have at least one output"),
        ({"biases": torch.zeros(3)}, r"biases must have the shape \(2\), got \(3\)"),
        ({"weights": torch.zeros(3, 4), "biases": torch.zeros(3)}, "value must have a multiple of the 3 channels"),
    ],
)
def test_a_direct_call_cannot_read_out_of_bounds(change: dict[str, Tensor], message: str) -> None:
    maps = [torch.zeros(1, 4, 5, 5) for _ in range(3)]
    layer = {"scales": torch.zeros(4), "shifts": torch.zeros(4), "weights": torch.zeros(2, 4), "biases": torch.zeros(2)}
    parameters = {name: [tensor] for name, tensor in (layer | change).items()}
    with pytest.raises(RuntimeError, match=message):
        torch.ops.sa_layers.pairwise_attention(*maps, **parameters, **KEYWORDS)


@pytest.mark.parametrize("count", [0, 2, 4])
def test_a_direct_call_needs_lists_of_the_same_length(count: int) -> None:
    maps, ones = [torch.zeros(1, 1, 5, 5) for _ in range(3)], torch.ones(1)
    message = f"must be lists of one to 3 tensors, got 1, 1, {count} and 1"
    with pytest.raises(RuntimeError, match=message):
        torch.ops.sa_layers.pairwise_attention(*maps, [ones], [ones], [ones.view(1, 1)] * count, [ones], **KEYWORDS)
