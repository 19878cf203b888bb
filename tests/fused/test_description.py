"""Plans as text: what comes back is equal, and nothing but a plan is made."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import sa_layers.fused.evaluation.operator  # noqa: F401  (registers the operator)
from sa_layers.fused.description import Language


class Layer(NamedTuple):
    weight: Tensor
    options: Any


LANGUAGE = Language(Layer)


@pytest.mark.parametrize(
    "options",
    [None, True, -3, 0.1, -math.inf, "an 'apostrophe'", [1, (2,)], {"a": (None, -1.5)}, Layer(torch.ones(1), 2)],
)
def test_comes_back_equal(options: Any) -> None:
    described = LANGUAGE.describe(Layer(torch.ones(2), options))
    assert described is not None
    restored = LANGUAGE.restore(described.text, described.tensors)
    assert restored.options == options
    assert restored.weight is described.tensors[0]


def test_a_tensor_that_is_read_twice_is_listed_once() -> None:
    weight = torch.ones(2)
    described = LANGUAGE.describe(Layer(weight, [weight, torch.zeros(1)]))
    assert described is not None
    assert described.text == "Layer(weight=t[0], options=[t[0], t[1]])"
    assert len(described.tensors) == 2


@pytest.mark.parametrize("part", [nn.Identity(), object(), torch.float32])
def test_what_is_no_data_has_no_description(part: Any) -> None:
    assert LANGUAGE.describe(Layer(torch.ones(1), part)) is None


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').getcwd()",
        "().__class__.__mro__",
        "Layer.__init__(t)",
        "Layer(t[0], open)",
        "[Layer for Layer in t]",
        "(lambda: t)()",
        "Layer[0]",
        "Layer(",
    ],
)
def test_refuses_other_code(text: str) -> None:
    with pytest.raises(ValueError, match="text must describe a plan"):
        LANGUAGE.restore(text, [torch.ones(1)])


def test_the_operator_refuses_other_code() -> None:
    """As a program in an untrusted file could pass it."""
    with pytest.raises(ValueError, match="text must describe a plan"):
        torch.ops.sa_layers.evaluate([torch.zeros(1, 3, 8, 8)], [], "__import__('os').getcwd()", False)
