"""Patchwise attention, whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from sa_layers.ops import AffineReLU
from sa_layers.ops.mapping_layer import operands_of

from .attention_problem import convert, make_mapping
from .attention_tester import AttentionTester
from .operator_tester import Options
from .patchwise_problem import by_reference, mapping_widths
from .problem import CORNERS, Problem


class TestPatchwiseAttention(AttentionTester):
    name = "patchwise_attention"
    options = (
        {"relation": "concatenation", "epilogue": None},
        {"relation": "star", "epilogue": "epilogue"},
        {"relation": "clique", "epilogue": None},
    )
    kernel_sizes = (1, 3, 5)  # a clique of 49 taps has 2401 features

    def parameters(self, problem: Problem, options: Options) -> dict[str, Any]:
        normal, channels, last = problem.normal, problem.weight_channels * problem.share, None
        taps, weights = problem.footprint.taps, problem.weight_channels
        mapping = make_mapping(normal, mapping_widths(options["relation"], channels, taps, weights))
        if options["epilogue"]:
            last = AffineReLU(normal(channels), normal(channels, 1)[:, 0])
        return {"relation": options["relation"], "mapping": mapping, "epilogue": last}

    def by_reference(self, **arguments: Any) -> NDArray:
        return by_reference(**arguments)

    def schemas(self, problem: Problem, device: torch.device, options: Options) -> dict[str, tuple]:
        maps = [item.detach() for item in self.place_operands(problem, device, torch.float32)]
        parameters = self.parameters(problem, options)
        mapping, last = (convert(parameters[name], device, torch.float32) for name in ("mapping", "epilogue"))
        keywords = {
            "output_scale": last and last.scale,
            "output_shift": last and last.shift,
            "relation": options["relation"],
            "allow_tf32": False,
        }
        return {"patchwise_attention": (*maps, *operands_of(mapping), keywords | problem.footprint._asdict())}

    def test_refuses_tensors(self) -> None:
        self.refuses_tensors("query", "key", "value")
        query, key, value = self.operands(CORNERS[0])
        self.refuses(ValueError, r"key must have the shape \(2, 4, 6, 7\) for query", query, key[:, 1:], value)
        self.refuses(ValueError, r"value must have the shape \(2, C, 6, 7\) for query", query, key, value[..., 1:])
        self.refuses(ValueError, r"divides the channels of value \(3\), got 2", query, key, value[:, 1:])
        self.refuses(TypeError, "query and value must have the same dtype", query, key, value.float())
        words = "relation must be one of concatenation, star, clique, got 'dot'"
        self.refuses(ValueError, words, query, key, value, relation="dot")

    def test_refuses_mappings_and_epilogues(self) -> None:
        maps, mapping = self.operands(CORNERS[0]), self.parameters(CORNERS[0], self.options[0])["mapping"]
        hidden, weights = mapping
        self.refuses(ValueError, r"mapping\[0\].scale must have the shape", *maps, kernel_size=5)
        self.refuses(ValueError, r"mapping\[0\].scale must have the shape", *maps, relation="star")
        half = [hidden, weights._replace(bias=weights.bias.half())]
        words = r"mapping\[1\].bias must be torch.float64 for features of torch.float64"
        self.refuses(TypeError, words, *maps, mapping=half)
        moved = [hidden._replace(shift=hidden.shift.to("meta")), weights]
        words = r"mapping\[0\].shift must be on the device of query, cpu, got meta"
        self.refuses(ValueError, words, *maps, mapping=moved)
        for layers in ([], [hidden], [hidden, weights, weights]):
            words = f"mapping must consist of 2 MappingLayer, got {len(layers)} items"
            self.refuses(ValueError, words, *maps, mapping=layers)
        fewer = [hidden, weights._replace(weight=weights.weight[1:], bias=weights.bias[1:])]
        self.refuses(ValueError, "an output for each of 2 weights and 9 taps, got 17", *maps, mapping=fewer)
        epilogue = AffineReLU(weights.bias.new_ones(4), weights.bias.new_ones(3))
        self.refuses(ValueError, "epilogue.shift must have the shape", *maps, epilogue=epilogue)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({(0, "scale"): torch.zeros(39)}, r"scales must have the shape \(40\), got \(39\)"),
        ({(1, "shift"): torch.zeros(3)}, r"shifts must have the shape \(2\), got \(3\)"),
        ({(0, "weight"): torch.zeros(2, 36)}, r"weights must have the shape \(2, 40\), got \(2, 36\)"),
        ({(1, "weight"): torch.zeros(18, 3)}, r"weights must have the shape \(18, 2\), got \(18, 3\)"),
        ({(1, "weight"): torch.zeros(18, 2).double()}, "weights must have the dtype"),
        ({(1, "bias"): torch.zeros(9)}, r"biases must have the shape \(18\), got \(9\)"),
        ({(1, "weight"): torch.zeros(20, 2), (1, "bias"): torch.zeros(20)}, "weights must have 9 times the 2 hidden"),
    ],
)
def test_a_direct_call_cannot_read_out_of_bounds(changes: dict[tuple[int, str], Tensor], message: str) -> None:
    maps = [torch.zeros(1, 4, 5, 5) for _ in range(3)]
    mapping = make_mapping(torch.zeros, [40, 2, 18])
    for (index, name), tensor in changes.items():
        mapping[index] = mapping[index]._replace(**{name: tensor})
    geometry = ([3, 3], "concatenation", [1, 1], [1, 1], "reflect")
    with pytest.raises(RuntimeError, match=message):
        torch.ops.sa_layers.patchwise_attention(*maps, *operands_of(mapping), None, None, *geometry, False)
