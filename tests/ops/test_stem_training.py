"""The stem in training: the native kernels and plain torch against autograd in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from sa_layers.ops import backend, extension
from sa_layers.ops.stem_training import image_moments, stem_backward, stem_forward, stem_input_gradient

needs_kernels = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
on_backends = pytest.mark.parametrize("name", ["torch", pytest.param("native", marks=needs_kernels)])
TOLERANCES = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
on_dtypes = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
FORMS = ("contiguous", "channels last", "slice", "permuted")
on_forms = pytest.mark.parametrize("form", FORMS)
EPS = 1e-5


def as_form(image: Tensor, form: str) -> Tensor:
    """The same numbers with other strides."""
    if form == "channels last":
        return image.contiguous(memory_format=torch.channels_last)
    if form == "slice":
        return F.pad(image, (1, 3, 2, 1), value=torch.nan)[..., 2:-1, 1:-3]
    return image.transpose(2, 3).contiguous().transpose(2, 3) if form == "permuted" else image.clone()


def make_image(size: tuple[int, ...], dtype: torch.dtype, mean: float = 0.5) -> Tensor:
    """In float64, the numbers that the dtype holds."""
    generator = torch.Generator().manual_seed(sum(size))
    return (torch.randn(size, generator=generator, dtype=torch.float64) + mean).to(dtype).double()


@on_backends
@on_dtypes
@on_forms
@pytest.mark.parametrize("mean", [0.0, 1000.0])
@pytest.mark.parametrize("size", [(1, 1, 2, 2), (2, 3, 37, 41), (2, 4, 8, 24), (1, 8, 60, 50), (1, 9, 5, 6)], ids=str)
def test_image_moments(size: tuple[int, ...], mean: float, form: str, dtype: torch.dtype, name: str) -> None:
    image = make_image(size, dtype, mean)
    with backend(name):
        result, covariance = image_moments(as_form(image.to(dtype), form))
    planes = image.transpose(0, 1).flatten(1)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    assert result.dtype == covariance.dtype == torch.float64
    torch.testing.assert_close(result, planes.mean(1), rtol=2e-14, atol=tolerance)
    torch.testing.assert_close(
        covariance, planes.cov(correction=0).view(size[1], size[1]), rtol=tolerance, atol=tolerance
    )


@on_backends
@on_dtypes
@on_forms
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    ("size", "channels"),
    [
        ((1, 3, 2, 2), 64),
        ((2, 3, 11, 13), 64),
        ((2, 1, 8, 6), 5),
        ((1, 4, 70, 9), 33),
        ((1, 8, 6, 6), 40),
        ((1, 9, 6, 6), 8),
    ],
)
def test_gradients(
    size: tuple[int, ...], channels: int, frozen: bool, has_bias: bool, form: str, dtype: torch.dtype, name: str
) -> None:
    """Of all parameters and of the image, through the equations in the description of the module."""
    generator = torch.Generator().manual_seed(channels)
    image = make_image(size, dtype).requires_grad_()
    w = torch.randn(channels, size[1], generator=generator, dtype=torch.float64).requires_grad_()
    bias, beta = torch.randn(2, channels, generator=generator, dtype=torch.float64).requires_grad_().unbind()
    gamma = torch.randn(channels, generator=generator, dtype=torch.float64).requires_grad_()
    bias = bias if has_bias else 0 * bias
    running = torch.randn(channels, dtype=torch.float64), torch.rand(channels, dtype=torch.float64) + 0.5
    output = F.conv2d(image, w[:, :, None, None], bias)
    statistics = running if frozen else (output.mean((0, 2, 3)), output.var((0, 2, 3), correction=0))
    normed = F.batch_norm(output, *(s.detach().clone() for s in statistics), gamma, beta, not frozen, 0, EPS)
    wanted_output = F.max_pool2d(normed.relu(), 2).permute(0, 2, 3, 1)
    grad = torch.randn(wanted_output.shape, generator=generator, dtype=torch.float64).to(dtype)
    wanted = torch.autograd.grad(wanted_output, (w, gamma, beta, image), grad.double())
    image, w, bias, gamma, beta = (tensor.detach() for tensor in (image, w, bias, gamma, beta))

    given, compute = as_form(image.to(dtype), form), torch.promote_types(dtype, torch.float32)
    with backend(name):
        mean, covariance = image_moments(given)
        mean_t = running[0] if frozen else w @ mean + bias
        variance = running[1] if frozen else (w @ covariance * w).sum(1)
        inverse_deviation = (variance + EPS).rsqrt()
        s, pixels = gamma * inverse_deviation, image[:, 0].numel()
        weight, shift = (s[:, None] * w).to(compute), (beta - s * (mean_t - bias)).to(compute)
        result = stem_forward(given, weight, shift)
        sums = stem_backward(grad, given, weight, shift, mean)
        grad_gamma = inverse_deviation * ((w * sums[1:].t()).sum(1) + sums[0] * (w @ mean + bias - mean_t))
        if frozen:
            grad_w = s[:, None] * (sums[1:].t() + sums[0][:, None] * mean)
            grad_image = stem_input_gradient(grad, given, weight, shift)
        else:
            correction = (inverse_deviation * grad_gamma)[:, None] * (w @ covariance)
            grad_w = s[:, None] * (sums[1:].t() - correction)
            matrix = -(w.t() * (s * inverse_deviation * grad_gamma / pixels)) @ w
            offset = -w.t() @ (s * sums[0] / pixels)
            grad_image = stem_input_gradient(grad, given, weight, shift, mean, matrix, offset)
    assert result.dtype == grad_image.dtype == dtype
    for value, exact in zip((result, grad_w, grad_gamma, sums[0], grad_image), (wanted_output, *wanted), strict=True):
        scale = 1 + exact.abs().max().item()
        torch.testing.assert_close(value.double(), exact.detach(), rtol=0, atol=TOLERANCES[dtype] * scale)


@needs_kernels
def test_threads_change_no_bit() -> None:
    image, grad = make_image((3, 3, 122, 118), torch.float32).float(), torch.randn(3, 61, 59, 64)
    weight, shift = torch.randn(64, 3), torch.randn(64)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            mean, covariance = image_moments(image)
            results.append((mean, covariance, stem_backward(grad, image, weight, shift, mean)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@on_backends
@on_dtypes
def test_winners_are_those_of_torch(dtype: torch.dtype, name: str) -> None:
    """The first of equal pixels."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 3, (1, 3, 40, 40), generator=generator).to(dtype)
    grad = torch.randn(1, 20, 20, 16, generator=generator).to(dtype)
    weight = torch.randint(-2, 3, (16, 3), generator=generator).to(torch.promote_types(dtype, torch.float32))
    output = F.conv2d(image.to(weight.dtype), weight[:, :, None, None]).requires_grad_()
    pooled = F.max_pool2d(output.relu(), 2).permute(0, 2, 3, 1)
    (wanted,) = torch.autograd.grad(pooled, output, grad.to(weight.dtype))
    exact = wanted.double().transpose(0, 1).flatten(1)
    with backend(name):
        sums = stem_backward(grad, image, weight, weight.new_zeros(16), torch.zeros(3).double())
    torch.testing.assert_close(sums[0], exact.sum(1), rtol=0, atol=1e-4)
    torch.testing.assert_close(sums[1:], image.double().transpose(0, 1).flatten(1) @ exact.t(), rtol=0, atol=1e-4)


@on_backends
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e30, -1e20])
def test_gradients_pass_where_those_of_torch_do(value: float, name: str) -> None:
    """The last NaN of four pixels wins, and passes the ReLU."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, 40, 38, generator=generator)
    image[0, 1].masked_fill_(torch.rand(40, 38, generator=generator) < 0.2, value)
    image[0, 2].masked_fill_(torch.rand(40, 38, generator=generator) < 0.1, value)
    image[..., :10] = torch.randn(1, 3, 40, 10, generator=generator)
    weight, shift = torch.randn(16, 3, generator=generator), torch.randn(16, generator=generator)
    planes = [weight[:, k, None, None] * image[:, k, None] for k in range(3)]
    output = (planes[0] + planes[1] + planes[2]).requires_grad_()
    pooled = (F.max_pool2d(output, 2) + shift[:, None, None]).relu()
    grad = torch.randn(1, 20, 19, 16, generator=generator)
    (wanted,) = torch.autograd.grad(pooled.permute(0, 2, 3, 1), output, grad)
    with backend(name):
        sums = stem_backward(grad, image, weight, shift, torch.zeros(3).double())
        result = stem_forward(image, weight, shift)
    torch.testing.assert_close(sums[0], wanted.double().sum((0, 2, 3)), rtol=0, atol=1e-4)
    exact = pooled.detach().permute(0, 2, 3, 1)
    torch.testing.assert_close(result.isnan(), exact.isnan())
    torch.testing.assert_close(result.nan_to_num(), exact.nan_to_num(), rtol=1e-5, atol=1e-5)


@needs_kernels
def test_fake_tensors() -> None:
    image, grad = torch.randn(2, 3, 8, 6), torch.randn(2, 4, 3, 16)

    def compute(image: Tensor, grad: Tensor) -> list[Tensor]:
        mean, covariance = image_moments(image)
        weight, shift = image.new_ones(16, 3), image.new_ones(16)
        return [mean, covariance, stem_backward(grad, image, weight, shift, mean)]

    expected = compute(image, grad)
    with FakeTensorMode() as mode:
        results = compute(mode.from_tensor(image), mode.from_tensor(grad))
    assert [(result.shape, result.dtype) for result in results] == [(wanted.shape, wanted.dtype) for wanted in expected]


@needs_kernels
def test_refusals() -> None:
    """Calls that would read out of bounds."""
    call, image, grad = torch.ops.sa_layers, torch.zeros(1, 3, 4, 4), torch.zeros(1, 2, 2, 8)
    weight, shift, mean = torch.zeros(3, 8), torch.zeros(8), torch.zeros(3).double()
    call.stem_backward(grad, image, weight, shift, mean)
    for refused, message in (
        (lambda: call.image_moments(image[0]), "image must have 4 dimensions"),
        (lambda: call.image_moments(torch.zeros(1, 9, 4, 4)), "image must have 1 to 8 channels, got 9"),
        (lambda: call.stem_backward(grad, image, weight[:2], shift, mean), "weight must have the shape"),
        (lambda: call.stem_backward(grad, image, weight, shift, mean[:2]), "mean must have the shape"),
        (lambda: call.stem_backward(grad, image, weight, shift, mean.float()), "mean must be float64"),
        (lambda: call.stem_backward(grad[:, :1], image, weight, shift, mean), "grad_pooled must have the shape"),
    ):
        with pytest.raises(RuntimeError, match=message):
            refused()
