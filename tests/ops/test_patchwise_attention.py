"""Patchwise attention, whole."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray

from sa_layers.ops import AffineReLU

from .attention_problem import convert
from .attention_tester import AttentionTester
from .operator_tester import Options
from .patchwise_problem import by_reference, make_mapping
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
        mapping = make_mapping(normal, options["relation"], channels, taps, weights)
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
        return {"patchwise_attention": (*maps, *mapping, keywords | problem.footprint._asdict())}

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
        self.refuses(ValueError, "scale must have the shape", *maps, kernel_size=5)
        self.refuses(ValueError, "scale must have the shape", *maps, relation="star")
        half = mapping._replace(bias=mapping.bias.half())
        self.refuses(TypeError, "bias must be torch.float64 for a query of torch.float64", *maps, mapping=half)
        moved = mapping._replace(bias=mapping.bias.to("meta"))
        self.refuses(ValueError, "bias must be on the device of query, cpu, got meta", *maps, mapping=moved)
        epilogue = AffineReLU(mapping.bias.new_ones(4), mapping.bias.new_ones(3))
        self.refuses(ValueError, "epilogue.shift must have the shape", *maps, epilogue=epilogue)
