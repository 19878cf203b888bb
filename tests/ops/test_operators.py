"""Every operator: native and plain torch forms against the reference, derivatives, compilation, autocast, refusals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from sa_layers import ops, reference
from sa_layers.ops import PADDING_MODES, PAIRWISE_RELATIONS, PATCHWISE_RELATIONS, backend, extension

BACKENDS = [
    "torch",
    pytest.param("native", marks=pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))),
]
# (height, width), kernel_size, stride, dilation: plain, strided, dilated, smaller than the footprint, a single pixel
GEOMETRIES = [
    ((6, 7), 3, 1, 1),
    ((9, 8), (3, 5), (2, 1), (1, 2)),
    ((3, 2), 7, 1, 1),
    ((1, 1), 3, 1, 1),
    ((5, 9), 5, 3, 2),
]


def operands(name: str, size: tuple[int, int], footprint: ops.Footprint, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(2, 4, *size, generator=generator, dtype=torch.float64)
    if "aggregation" in name:
        height, width = footprint.output_size(*size)
        second = torch.randn(2, 2, footprint.taps, height * width, generator=generator, dtype=torch.float64)
    else:
        second = torch.randn(2, 4, *size, generator=generator, dtype=torch.float64)
    return first.to(dtype), second.to(dtype)


def cases() -> list[tuple[str, dict]]:
    relations = [("pairwise_relation", {"relation": relation}) for relation in PAIRWISE_RELATIONS]
    relations += [("patchwise_relation", {"relation": relation}) for relation in PATCHWISE_RELATIONS]
    return [("aggregation", {}), ("softmax_aggregation", {}), *relations]


def call(name: str, options: dict, geometry: tuple, padding_mode: str) -> Callable[..., Tensor]:
    _, kernel_size, stride, dilation = geometry
    return lambda *tensors: getattr(ops, name)(
        *tensors, kernel_size, stride=stride, dilation=dilation, padding_mode=padding_mode, **options
    )


@pytest.mark.parametrize(("name", "options"), cases(), ids=str)
@pytest.mark.parametrize("name_of_backend", BACKENDS)
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
class TestAgainstReference:
    def arguments(self, geometry: tuple, padding_mode: str) -> dict:
        _, kernel_size, stride, dilation = geometry
        return {"kernel_size": kernel_size, "stride": stride, "dilation": dilation, "padding_mode": padding_mode}

    def test_forward(self, name: str, options: dict, name_of_backend: str, padding_mode: str, geometry: tuple) -> None:
        arguments = self.arguments(geometry, padding_mode)
        footprint = ops.Footprint.parse(**arguments)
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 5e-2)):
            tensors = operands(name, geometry[0], footprint, dtype)
            wanted = getattr(reference, name)(*(item.double().numpy() for item in tensors), **arguments, **options)
            with backend(name_of_backend):
                output = call(name, options, geometry, padding_mode)(*tensors)
                last = call(name, options, geometry, padding_mode)(
                    *(item.to(memory_format=torch.channels_last) for item in tensors)
                )
            assert output.dtype == dtype
            np.testing.assert_allclose(output.double().numpy(), wanted, rtol=tolerance, atol=tolerance)
            torch.testing.assert_close(last, output)

    def test_backward(self, name: str, options: dict, name_of_backend: str, padding_mode: str, geometry: tuple) -> None:
        arguments = self.arguments(geometry, padding_mode)
        tensors = operands(name, geometry[0], ops.Footprint.parse(**arguments), torch.float64)
        tensors = tuple(item.requires_grad_() for item in tensors)
        with backend(name_of_backend):
            output = call(name, options, geometry, padding_mode)(*tensors)
            grad = torch.randn(output.shape, dtype=torch.float64)
            found = torch.autograd.grad(output, tensors, grad)
        arrays = [item.detach().numpy() for item in (grad, *tensors)]
        wanted = getattr(reference, f"{name}_backward")(*arrays, **arguments, **options)
        for grad_found, grad_wanted in zip(found, wanted, strict=True):
            np.testing.assert_allclose(grad_found.numpy(), grad_wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("name", "options"), cases(), ids=str)
@pytest.mark.parametrize("name_of_backend", BACKENDS)
def test_derivatives_of_both_orders(name: str, options: dict, name_of_backend: str) -> None:
    geometry = ((2, 3), 3, (2, 1), 1)
    tensors = operands(name, geometry[0], ops.Footprint.parse(3, (2, 1)), torch.float64)
    tensors = tuple(item[:1].requires_grad_() for item in tensors)
    function = call(name, options, geometry, "reflect")
    with backend(name_of_backend):
        assert torch.autograd.gradcheck(function, tensors)
        assert torch.autograd.gradgradcheck(function, tensors)


@pytest.mark.parametrize("name", ["aggregation", "softmax_aggregation", "pairwise_relation"])
def test_compiles_maps_and_casts(name: str) -> None:
    geometry = ((6, 7), 3, 1, 1)
    tensors = tuple(item.requires_grad_() for item in operands(name, (6, 7), ops.Footprint.parse(3), torch.float32))
    function = call(name, {}, geometry, "reflect")
    output = function(*tensors)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)(*tensors)
    torch.testing.assert_close(compiled, output)
    torch.testing.assert_close(
        torch.autograd.grad(compiled.sum(), tensors), torch.autograd.grad(output.sum(), tensors, retain_graph=True)
    )
    mapped = torch.vmap(function)(*(torch.stack([item, 2 * item]) for item in tensors))
    torch.testing.assert_close(mapped[0], output)
    gradient = torch.func.grad(lambda first: function(first, tensors[1]).sum())(tensors[0])
    torch.testing.assert_close(gradient, torch.autograd.grad(output.sum(), tensors[0], retain_graph=True)[0])
    with torch.autocast("cpu", torch.bfloat16):
        assert function(tensors[0].bfloat16(), tensors[1]).dtype == torch.bfloat16


@pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
@pytest.mark.parametrize("name", ["aggregation", "pairwise_relation", "softmax_aggregation"])
def test_registration_of_native_operators(name: str) -> None:
    footprint = ops.Footprint.parse(3, 2)
    tensors = tuple(item.requires_grad_() for item in operands(name, (5, 4), footprint, torch.float32))
    relation = ("subtraction",) if name == "pairwise_relation" else ()
    overload = getattr(torch.ops.sa_layers, name).default
    torch.library.opcheck(overload, (*tensors, *relation, *(list(item) for item in footprint[:3]), "reflect"))


@pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
def test_threads_agree_to_the_bit() -> None:
    value, weight = (torch.randn(2, 64, 14, 14, requires_grad=True), torch.randn(2, 8, 49, 196, requires_grad=True))
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            output = ops.softmax_aggregation(value, weight, 7)
            results.append([output, *torch.autograd.grad(output.square().sum(), (value, weight))])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"kernel_size": 4}, ValueError, "kernel_size must be odd"),
        ({"kernel_size": 3.0}, TypeError, "kernel_size must be an integer or a pair of integers, got 3.0"),
        ({"kernel_size": 3, "stride": 0}, ValueError, "stride must be at least 1, got 0"),
        ({"kernel_size": 3, "padding_mode": "circular"}, ValueError, "padding_mode must be one of reflect, zeros"),
        ({"kernel_size": 5}, ValueError, r"weight must have the shape \(2, Cw, 25, 30\)"),
    ],
)
def test_refuses_arguments(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.aggregation(torch.zeros(2, 4, 5, 6), torch.zeros(2, 2, 9, 30), **arguments)


def test_refuses_tensors() -> None:
    value, weight = torch.zeros(2, 4, 5, 6), torch.zeros(2, 2, 9, 30)
    with pytest.raises(TypeError, match=r"value and weight must have one dtype, got torch.float64"):
        ops.aggregation(value.double(), weight, 3)
    with pytest.raises(ValueError, match=r"weight must have a number of channels that divides those of value \(4\)"):
        ops.aggregation(value, torch.zeros(2, 3, 9, 30), 3)
    with pytest.raises(ValueError, match=r"value must have the shape \(N, C, H, W\), got \(4, 5, 6\)"):
        ops.aggregation(value[0], weight, 3)
    with pytest.raises(ValueError, match=r"relation must be one of subtraction, .* got 'cosine'"):
        ops.pairwise_relation(value, value, 3, "cosine")
    with pytest.raises(ValueError, match="backend must be one of native, torch, got 'cupy'"), backend("cupy"):
        pass
