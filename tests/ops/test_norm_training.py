"""Norms in training: the native kernels and plain torch against autograd in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from sa_layers.ops import backend, extension
from sa_layers.ops.norm_training import (
    channel_statistics,
    mask_and_sum,
    max_pooling,
    max_pooling_backward,
    max_pooling_sums,
    norm_backward,
)

needs_kernels = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
on_backends = pytest.mark.parametrize("name", ["torch", pytest.param("native", marks=needs_kernels)])
TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}
on_dtypes = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
SIZES = [(1, 2, 2, 1), (2, 7, 5, 3), (1, 9, 8, 64), (3, 6, 7, 40), (2, 31, 33, 17), (1, 3, 2, 300), (1, 130, 131, 6)]
on_sizes = pytest.mark.parametrize("size", SIZES, ids=str)
FORMS = ("contiguous", "slice", "permuted")
on_forms = pytest.mark.parametrize("form", FORMS)
EPS = 1e-5


class Norm(NamedTuple):
    """A norm with batch statistics, its input and coefficients as the operators take them."""

    x: Tensor
    gamma: Tensor
    beta: Tensor
    scale: Tensor
    shift: Tensor
    mean: Tensor
    inverse_deviation: Tensor

    def output(self, x: Tensor) -> Tensor:
        """The norm and the ReLU of the rounded input, in float64."""
        mean, variance = x.flatten(0, -2).mean(0), x.flatten(0, -2).var(0, correction=0)
        return ((x - mean) / (variance + EPS).sqrt() * self.gamma + self.beta).relu()

    def factors(self, sums: Tensor) -> Tensor:
        """k1, k2, k3 of a norm with batch statistics."""
        scale, pixels = self.gamma * self.inverse_deviation, self.x[..., 0].numel()
        k2 = -scale * self.inverse_deviation**2 * sums[1] / pixels
        return torch.stack([scale, k2, -scale * sums[0] / pixels - k2 * self.mean])


def make_norm(size: tuple[int, ...], dtype: torch.dtype, mean: float = 0.5) -> Norm:
    """No input of the ReLU is so near 0 that rounding changes its sign, and no two are nearly equal."""
    generator = torch.Generator().manual_seed(sum(size))
    x = (torch.randn(size, generator=generator, dtype=torch.float64) + mean).to(dtype).double()
    gamma, beta = 1 + torch.rand(2, size[-1], generator=generator, dtype=torch.float64)
    statistics = x.flatten(0, -2)
    center, inverse_deviation = statistics.mean(0), (statistics.var(0, correction=0) + EPS).rsqrt()
    scale = gamma * inverse_deviation
    coefficients = torch.promote_types(dtype, torch.float32)
    shift = (beta - center * scale).to(coefficients)
    return Norm(x, gamma, beta, scale.to(coefficients), shift, center, inverse_deviation)


def as_form(tensor: Tensor, form: str) -> Tensor:
    """The same numbers as a slice of a wider map's channels, or with rows and columns exchanged in memory."""
    if form == "slice":
        wide = tensor.new_full((*tensor.shape[:-1], tensor.shape[-1] + 5), torch.nan)
        wide[..., 2:-3] = tensor
        return wide[..., 2:-3]
    if form == "permuted":
        return tensor.transpose(1, 2).clone(memory_format=torch.contiguous_format).transpose(1, 2)
    return tensor.clone()


def check(result: Tensor, expected: Tensor, tolerance: float) -> None:
    assert result.shape == expected.shape
    scale = 1 + expected.abs().max().item() if expected.numel() else 1.0
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=tolerance * scale)


def check_sums(result: Tensor, expected: Tensor, grad: Tensor) -> None:
    """Relative to the sum of magnitudes, as sums of rounded numbers are."""
    assert result.dtype == torch.float64
    scale = 1 + grad.double().abs().flatten(0, -2).sum(0).max().item()
    tolerance = 1e-13 if grad.dtype == torch.float64 else 1e-6
    torch.testing.assert_close(result, expected, rtol=0, atol=tolerance * scale)


def gradient(size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


@on_backends
@on_dtypes
@on_sizes
@on_forms
@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_channel_statistics(mean: float, form: str, size: tuple[int, ...], dtype: torch.dtype, name: str) -> None:
    x = make_norm(size, dtype, mean).x
    with backend(name):
        result = channel_statistics(as_form(x.to(dtype), form))
    assert result.dtype == torch.float64
    rows = x.flatten(0, -2)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(result[0], rows.mean(0), rtol=2e-14, atol=tolerance)
    torch.testing.assert_close(result[1], rows.var(0, correction=0), rtol=tolerance, atol=tolerance)


@on_backends
@on_dtypes
@on_sizes
@on_forms
def test_norm_and_relu(form: str, size: tuple[int, ...], dtype: torch.dtype, name: str) -> None:
    """The whole backward pass, with batch statistics and frozen."""
    norm = make_norm(size, dtype)
    grad = gradient(size, dtype)
    x, gamma, beta = (tensor.clone().requires_grad_() for tensor in norm[:3])
    output = norm._replace(gamma=gamma, beta=beta).output(x)
    wanted = torch.autograd.grad(output, (x, gamma, beta), grad.double())
    masked, pixels = as_form(grad, form), as_form(norm.x.to(dtype), form)
    with backend(name):
        sums = mask_and_sum(masked, pixels, norm.scale, norm.shift, norm.mean)
        expected = torch.where(output > 0, grad, 0).detach()
        assert torch.equal(masked, expected)
        check_sums(sums, torch.stack([wanted[2], wanted[1] / norm.inverse_deviation]), grad)
        factors = norm.factors(sums)
        for k in (factors, factors[:1]):
            exact = wanted[0] if len(k) > 1 else k[0] * expected.double()
            out = as_form(grad, form)
            norm_backward(masked, pixels, k, out)
            check(out, exact, TOLERANCES[dtype])
            norm_backward(masked, pixels, k, out, accumulate=True)
            check(out, 2 * exact, 2 * TOLERANCES[dtype])
            in_place = as_form(masked, form)
            norm_backward(in_place, pixels, k, in_place)
            check(in_place, exact, TOLERANCES[dtype])


@on_backends
def test_gradient_of_a_large_mean(name: str) -> None:
    """k2 * x and k3 cancel."""
    norm = make_norm((2, 31, 33, 17), torch.float32, 1000.0)
    grad = gradient((2, 31, 33, 17), torch.float32)
    factors = norm.factors(torch.stack([grad.double().flatten(0, 2).sum(0), torch.full((17,), 1e4).double()]))
    expected = factors[0] * grad.double() + factors[1] * norm.x + factors[2]
    with backend(name):
        norm_backward(grad, norm.x.float(), factors, grad)
    check(grad, expected, 1e-6)


@on_backends
@pytest.mark.parametrize("k2", [0.0, 1e-42, 1e-300, 1e-30])
def test_gradient_of_a_norm_with_tiny_factors(k2: float, name: str) -> None:
    x, grad = torch.randn(3, 5), torch.randn(3, 5)
    factors = torch.tensor([1.0, k2, 0.25], dtype=torch.float64)[:, None].repeat(1, 5)
    with backend(name):
        norm_backward(grad.clone(), x, factors, out := torch.empty(3, 5))
    check(out, grad.double() + 0.25, 1e-6)


@on_backends
@on_dtypes
@pytest.mark.parametrize("size", [size for size in SIZES if size[1] > 1 and size[2] > 1], ids=str)
@on_forms
def test_max_pooling(form: str, size: tuple[int, ...], dtype: torch.dtype, name: str) -> None:
    """Forward and backward of norm, ReLU and pooling."""
    norm = make_norm(size, dtype)
    x, gamma, beta = (tensor.clone().requires_grad_() for tensor in norm[:3])
    output = pool(norm._replace(gamma=gamma, beta=beta).output(x))
    grad = gradient(tuple(output.shape), dtype)
    wanted = torch.autograd.grad(output, (x, gamma, beta), grad.double())
    pooled, pixels = as_form(grad, form), as_form(norm.x.to(dtype), form)
    out = as_form(gradient(size, dtype), form)
    with backend(name):
        check(max_pooling(pixels, norm.scale, norm.shift), output.detach(), TOLERANCES[dtype])
        sums = max_pooling_sums(pooled, pixels, norm.scale, norm.shift, norm.mean)
        check_sums(sums, torch.stack([wanted[2], wanted[1] / norm.inverse_deviation]), grad)
        max_pooling_backward(pooled, pixels, norm.scale, norm.shift, norm.factors(sums), out)
        check(out, wanted[0], TOLERANCES[dtype])
        max_pooling_backward(pooled, pixels, norm.scale, norm.shift, norm.factors(sums)[:1], out)
        frozen = (norm.x * norm.scale + norm.shift).requires_grad_()
        (expected,) = torch.autograd.grad(pool(frozen.relu()), frozen, grad.double())
        check(out, expected * norm.factors(sums)[0], TOLERANCES[dtype])
        max_pooling_backward(pooled, pixels, norm.scale, norm.shift, None, out)
        check(out, expected, TOLERANCES[dtype])


@on_backends
@on_dtypes
@on_forms
@pytest.mark.parametrize("size", [(2, 7, 5, 3), (1, 8, 9, 40)], ids=str)
def test_plain_max_pooling(size: tuple[int, ...], form: str, dtype: torch.dtype, name: str) -> None:
    """Without a norm: the winner as torch's, among few different numbers and NaN."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-2, 1, size, generator=generator).to(dtype)
    x[0, :2] = torch.where(torch.rand(2, *size[2:], generator=generator) < 0.3, torch.nan, x[0, :2])
    x[0, 2:4, :2] = -torch.inf
    leaf = x.clone().requires_grad_()
    output = pool(leaf)
    grad = gradient(tuple(output.shape), dtype)
    (wanted,) = torch.autograd.grad(output, leaf, grad)
    out = as_form(gradient(size, dtype), form)
    with backend(name):
        torch.testing.assert_close(max_pooling(as_form(x, form)), output.detach(), rtol=0, atol=0, equal_nan=True)
        max_pooling_backward(as_form(grad, form), as_form(x, form), None, None, None, out)
    assert torch.equal(out, wanted)


@on_backends
@on_dtypes
def test_nan_passes_a_relu(dtype: torch.dtype, name: str) -> None:
    """The gradient passes where the ReLU's input is NaN, and is 0 at 0, even if it is NaN, as in torch."""
    x = torch.tensor([torch.nan, 0.0, -1.0, 2.0, torch.inf, -torch.inf], dtype=dtype).repeat(9, 1)
    grad = torch.tensor([1.0, 2.0, torch.nan, 4.0, 5.0, torch.nan], dtype=dtype).repeat(9, 1)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(leaf.relu(), leaf, grad)
    one = torch.ones(6, dtype=torch.promote_types(dtype, torch.float32))
    with backend(name):
        sums = mask_and_sum(grad, x, one, 0 * one, 0 * one.double())
    assert torch.equal(grad, expected)
    assert sums[0].tolist() == [9, 0, 0, 36, 45, 0]


def pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


Call = Callable[[Tensor, Tensor, Norm], list[Tensor]]


def _mask_and_sum(grad: Tensor, x: Tensor, norm: Norm) -> list[Tensor]:
    grad = grad.clone()
    return [mask_and_sum(grad, x, norm.scale, norm.shift, norm.mean), grad]


def _norm_backward(grad: Tensor, x: Tensor, norm: Norm) -> list[Tensor]:
    norm_backward(grad, x, norm.factors(torch.ones_like(norm.factors(grad[0, 0]))), out := torch.empty_like(x))
    return [out]


def _max_pooling_backward(grad: Tensor, x: Tensor, norm: Norm) -> list[Tensor]:
    pooled, out = grad[:, ::2, ::2].contiguous(), torch.empty_like(x)
    max_pooling_backward(pooled, x, norm.scale, norm.shift, norm.factors(torch.ones(2, x.shape[-1])), out)
    return [max_pooling_sums(pooled, x, norm.scale, norm.shift, norm.mean), out]


CALLS: dict[str, Call] = {
    "channel_statistics": lambda grad, x, norm: [channel_statistics(x)],
    "mask_and_sum": _mask_and_sum,
    "norm_backward": _norm_backward,
    "max_pooling": lambda grad, x, norm: [max_pooling(x, norm.scale, norm.shift)],
    "max_pooling_backward": _max_pooling_backward,
}
on_calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@needs_kernels
@on_calls
@pytest.mark.parametrize("size", [(3, 60, 58, 64), (2, 30, 32, 3), (1, 8, 10, 700)], ids=str)
def test_threads_change_no_bit(size: tuple[int, ...], call: Call) -> None:
    norm, grad = make_norm(size, torch.float32), gradient(size, torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(call(grad, norm.x.float(), norm))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@needs_kernels
@on_calls
def test_fake_tensors(call: Call) -> None:
    """They have the results' shapes and dtypes."""
    norm, grad = make_norm((2, 8, 6, 5), torch.float32), gradient((2, 8, 6, 5), torch.float32)
    expected = call(grad, norm.x.float(), norm)
    with FakeTensorMode() as mode:
        fake = Norm(*map(mode.from_tensor, norm))
        results = call(mode.from_tensor(grad), fake.x.float(), fake)
    assert [(result.shape, result.dtype) for result in results] == [(wanted.shape, wanted.dtype) for wanted in expected]


@needs_kernels
def test_no_pixels() -> None:
    empty, ones = torch.empty(0, 4, 4, 8), torch.ones(8)
    assert channel_statistics(empty).isnan().all()
    assert mask_and_sum(empty, empty, ones, ones, ones.double()).eq(0).all()
    norm_backward(empty, empty, torch.ones(3, 8).double(), empty)
    assert max_pooling(empty, ones, ones).shape == (0, 2, 2, 8)
    pooled = torch.empty(0, 2, 2, 8)
    assert max_pooling_sums(pooled, empty, ones, ones, ones.double()).eq(0).all()
    max_pooling_backward(pooled, empty, ones, ones, None, empty)


@needs_kernels
def test_refusals() -> None:
    """Calls that would read or write out of bounds."""
    call, x, ones, mean = torch.ops.sa_layers, torch.zeros(1, 4, 4, 8), torch.ones(8), torch.ones(8).double()
    pooled, factors = torch.zeros(1, 2, 2, 8), torch.ones(3, 8).double()
    for refused, message in (
        (lambda: call.channel_statistics(ones), "pixels must have pixels and channels"),
        (lambda: call.channel_statistics(x.int()), "pixels must be float32, float64"),
        (lambda: call.mask_and_sum(x[:, :2], x, ones, ones, mean), "grad must have the shape"),
        (lambda: call.mask_and_sum(x.double(), x, ones, ones, mean), "grad must have the dtype"),
        (lambda: call.mask_and_sum(x, x, ones[:7], ones, mean), "scale must have the shape"),
        (lambda: call.mask_and_sum(x, x, ones, ones, ones), "mean must be float64"),
        (lambda: call.norm_backward(x, x, factors[:2], x, False), "factors must have the shape"),
        (lambda: call.norm_backward(x, x, factors, x[..., :7], False), "out must have the shape"),
        (lambda: call.max_pooling(x[:, :1]), "features must have at least 2 x 2 pixels"),
        (lambda: call.max_pooling_sums(x, x, ones, ones, mean), "grad_pooled must have the shape"),
        (lambda: call.max_pooling_backward(pooled, x, ones, None, None, x), "scale and shift must be given together"),
        (lambda: call.max_pooling_backward(pooled, x, None, None, factors[:, :7], x), "factors must have the shape"),
    ):
        with pytest.raises(RuntimeError, match=message):
            refused()
