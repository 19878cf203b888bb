"""What a footprint can be: anything beyond is refused with a sentence, by the Python functions and by the schemas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sa_layers import reference
from sa_layers.ops import (
    aggregation,
    backend,
    extension,
    pairwise_relation,
    patchwise_relation,
    softmax_aggregation,
)
from sa_layers.ops.footprint import MAX_REACH, MAX_SIZE, MAX_TAPS

needs_kernels = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
OPERATORS: dict[str, Callable[..., Tensor]] = {
    "aggregation": aggregation,
    "softmax_aggregation": softmax_aggregation,
    "pairwise_relation": pairwise_relation,
    "patchwise_relation": patchwise_relation,
}
TOO_LARGE: dict[str, tuple[dict[str, Any], str]] = {
    "dilation of 2**62": ({"kernel_size": 3, "dilation": 2**62}, f"dilation must be at most {MAX_SIZE}"),
    "dilation of 2**63 - 1": ({"kernel_size": 3, "dilation": 2**63 - 1}, f"dilation must be at most {MAX_SIZE}"),
    "stride of 2**31": ({"kernel_size": 3, "stride": (1, 2**31)}, f"stride must be at most {MAX_SIZE}"),
    "kernel of 2**31 + 1": ({"kernel_size": (2**31 + 1, 1)}, f"kernel_size must be at most {MAX_SIZE}"),
    "many taps": ({"kernel_size": 1025}, f"kernel_size must have at most {MAX_TAPS} taps"),
    "long reach": (
        {"kernel_size": 21, "dilation": 60000},
        rf"dilation \* \(kernel_size - 1\) must be at most {MAX_REACH} pixels",
    ),
}


@pytest.mark.parametrize(("geometry", "sentence"), TOO_LARGE.values(), ids=TOO_LARGE)
@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_refused(operator: Callable[..., Tensor], geometry: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        operator(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 9, 16), **geometry)


@needs_kernels
@pytest.mark.parametrize(("geometry", "sentence"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_refused_in_direct_calls(geometry: dict[str, Any], sentence: str) -> None:
    def pair(name: str) -> list[int]:
        value = geometry.get(name, 1)
        return [value, value] if isinstance(value, int) else list(value)

    sizes, call = [pair(name) for name in ("kernel_size", "stride", "dilation")], torch.ops.sa_layers
    features, weight = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 9, 16)
    calls: list[Callable[[], object]] = [
        lambda: call.aggregation(features, weight, *sizes, "reflect", "interleaved"),
        lambda: call.aggregation_value_gradient(features, weight, 4, 4, *sizes, "zeros", "interleaved"),
        lambda: call.aggregation_weight_gradient(features, features, 2, *sizes, "zeros", "interleaved"),
        lambda: call.softmax_aggregation(features, weight, *sizes, "zeros", "interleaved"),
        lambda: call.pairwise_relation(features, features, sizes[0], "dot", *sizes[1:], "zeros"),
    ]
    for direct in calls:
        with pytest.raises(RuntimeError, match=sentence):
            direct()


@needs_kernels
def test_sizes_of_gradients_are_refused() -> None:
    with pytest.raises(RuntimeError, match="a map must have at most"):
        torch.ops.sa_layers.aggregation_value_gradient(
            *(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), 2**32, 2**32),
            *([1, 1], [1, 1], [1, 1], "zeros", "interleaved"),
        )


@pytest.mark.parametrize("padding_mode", ["reflect", "zeros"])
@pytest.mark.parametrize(
    ("name", "stride", "dilation"),
    [
        pytest.param("native", MAX_SIZE, (3000, 2000), marks=needs_kernels),
        pytest.param("native", (1, 2), (3, MAX_SIZE), marks=needs_kernels),
        ("torch", MAX_SIZE, (300, 200)),
    ],
)
def test_the_largest_are_computed(name: str, stride: Any, dilation: Any, padding_mode: str) -> None:
    """Strides and dilations far larger than the map."""
    torch.manual_seed(0)
    geometry: dict[str, Any] = {"stride": stride, "dilation": dilation, "padding_mode": padding_mode}
    value = torch.randn(1, 4, 5, 6)
    weight = torch.randn(1, 2, 9, 1 if stride == MAX_SIZE else 15)
    expected = reference.aggregation(value.numpy(), weight.numpy(), 3, **geometry)
    with backend(name):
        output = aggregation(value, weight, 3, **geometry)
    torch.testing.assert_close(output, torch.from_numpy(expected))
