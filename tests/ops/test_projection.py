"""The linear layer of every pixel with frozen norms around it: the native kernel and plain torch against float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sa_layers.ops import AffineReLU, backend, extension
from sa_layers.ops.projection import Linear, project
from tests.sampling import exhaustive

from .devices import NO_CUDA, on_devices
from .weight_forms import FORMS, strided

needs_kernels = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))


on_dtypes = pytest.mark.parametrize(
    "dtype", [torch.float64, pytest.param(torch.float32, marks=needs_kernels), torch.bfloat16, torch.float16], ids=str
)
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}
LAYERS = st.lists(st.integers(1, 100) | st.integers(1, 600), min_size=1, max_size=3)


def problem(pixels: int, channels: int, out_channels: int) -> dict[str, Tensor]:
    """Operands in float64."""
    torch.manual_seed(pixels + channels + out_channels)
    shapes = {
        "features": (1, 1, pixels, channels),
        "weight": (out_channels, channels),
        "bias": (out_channels,),
        "scale": (channels,),
        "shift": (channels,),
        "to": (1, 1, pixels, out_channels),
        "output_scale": (out_channels,),
        "output_shift": (out_channels,),
    }
    return {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}


def make_linear(given: dict[str, Tensor], dtype: torch.dtype, layers: Sequence[int] = ()) -> Linear:
    """One layer, or several with so many output channels each."""
    sizes = list(layers or given["bias"].shape)
    return Linear.of_layers(*(list(given[name].to(dtype).split(sizes)) for name in ("weight", "bias")))


def compute(given: dict[str, Tensor], dtype: torch.dtype, linear: Linear | None = None) -> tuple[Tensor, ...]:
    """All forms of the operator, of one layer by default."""
    linear = linear or make_linear(given, dtype)
    x, to = (given[name].to(dtype) for name in ("features", "to"))
    coefficients = torch.promote_types(dtype, torch.float32)
    names = ("scale", "shift", "output_scale", "output_shift")
    scale, shift, output_scale, output_shift = (given[name].to(coefficients) for name in names)
    plain, activated, added, normalised = (to.clone() for _ in range(4))
    project(x, linear, plain)
    project(x, linear, activated, prologue=AffineReLU(scale, shift))
    project(x, linear, added, accumulate=True)
    project(x, linear, normalised, accumulate=True, epilogue=AffineReLU(output_scale, output_shift))
    whole = linear.new_map(x)
    project(x, linear, whole)
    torch.testing.assert_close(whole[..., : linear.channels], plain, rtol=0, atol=0, equal_nan=True)
    return plain, activated, added, normalised


def expected(given: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """The equations."""
    activated = (given["scale"] * given["features"] + given["shift"]).relu()
    weight, bias = given["weight"].t(), given["bias"]
    added = given["to"] + given["features"] @ weight
    return (
        given["features"] @ weight + bias,
        activated @ weight + bias,
        added,
        (given["output_scale"] * added + given["output_shift"]).relu(),
    )


def check(operands: dict[str, Tensor], results: tuple[Tensor, ...], tolerance: float) -> None:
    for result, wanted in zip(results, expected(operands), strict=True):
        assert result.shape == wanted.shape
        torch.testing.assert_close(result.double(), wanted, rtol=0, atol=tolerance * (1 + wanted.abs().max().item()))


@needs_kernels
@settings(deadline=None, max_examples=60 if exhaustive() else 25)
@given(st.integers(1, 260), st.integers(1, 600), LAYERS)
def test_random_shapes(pixels: int, channels: int, layers: list[int]) -> None:
    """Part-filled panels of input and of output channels, single rows, more pixels than a part has."""
    operands = problem(pixels, channels, sum(layers))
    check(operands, compute(operands, torch.float32, make_linear(operands, torch.float32, layers)), 1e-5)


@on_dtypes
@pytest.mark.parametrize("layers", [(4, 4, 16), (16, 16, 32), (1, 2, 3), (20, 12), (5, 30, 40)], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_layers_as_modules_hold_them(form: str, layers: tuple[int, ...], dtype: torch.dtype) -> None:
    """They follow each other in the channels of the result, and may end in the middle of a panel."""
    operands = problem(21, 40, sum(layers))
    linear = make_linear(operands, dtype, layers)
    changed = Linear.of_layers([FORMS[form](weight) for weight in linear.weights], linear.biases)
    assert changed.channels == sum(layers)
    check(operands, compute(operands, dtype, changed), TOLERANCES[dtype])


@on_dtypes
@pytest.mark.parametrize(
    "given", [(True, True, True), (True, False, True), (False, True, False), (False, False, False)]
)
def test_layers_without_biases(given: tuple[bool, ...], dtype: torch.dtype) -> None:
    operands, layers = problem(5, 40, 24), (4, 4, 16)
    linear = make_linear(operands, dtype, layers)
    biases = [bias if is_given else None for bias, is_given in zip(linear.biases, given, strict=True)]
    zeroed = [bias if is_given else 0 * bias for bias, is_given in zip(linear.biases, given, strict=True)]
    operands["bias"] = torch.cat(zeroed).double()
    check(operands, compute(operands, dtype, Linear.of_layers(linear.weights, biases)), TOLERANCES[dtype])


@on_dtypes
def test_strided_biases_and_norms(dtype: torch.dtype) -> None:
    operands = {
        name: tensor if name in ("features", "to") else strided(tensor) for name, tensor in problem(5, 40, 24).items()
    }
    check(operands, compute(operands, dtype), TOLERANCES[dtype])


@on_dtypes
def test_a_changed_weight_has_an_effect(dtype: torch.dtype) -> None:
    """Nothing of the parameters is kept."""
    operands, layers = problem(5, 40, 24), (4, 4, 16)
    linear = make_linear(operands, dtype, layers)
    compute(operands, dtype, linear)
    for name, tensors in (("weight", linear.weights), ("bias", linear.biases)):
        operands[name] = -2 * operands[name]
        for tensor in tensors:
            assert tensor is not None
            tensor.data.mul_(-2)
    check(operands, compute(operands, dtype, linear), TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", [torch.float64, pytest.param(torch.float32, marks=needs_kernels), torch.bfloat16])
@pytest.mark.parametrize(
    ("size", "channels", "width"), [((2, 7, 10), 37, 32), ((3, 2, 3), 300, 40), ((1, 40, 9), 16, 64)]
)
def test_pools(size: tuple[int, ...], channels: int, width: int, dtype: torch.dtype) -> None:
    """Features are pooled first. Odd rows and columns are dropped, and NaN stays NaN."""
    torch.manual_seed(0)
    features, weight = torch.randn(*size, channels, dtype=dtype), torch.randn(width, channels, dtype=dtype)
    features[0, 1, 0, 0] = torch.nan
    pooled = F.max_pool2d(features.permute(0, 3, 1, 2).double(), 2).permute(0, 2, 3, 1)
    expected = pooled @ weight.double().t()
    to = expected.to(dtype).zero_()
    project(features, Linear.of_layers([weight], [None]), to, pool=True)
    assert to[0, 0, 0].isnan().all()
    assert to.isnan().sum() == width
    tolerance = 5e-2 if dtype == torch.bfloat16 else 1e-5
    scale = expected.nan_to_num().abs().max().item()
    torch.testing.assert_close(to.double(), expected, rtol=0, atol=tolerance * scale, equal_nan=True)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 5e-2), (torch.float16, 1e-2)]
)
def test_other_dtypes_are_plain_torch(dtype: torch.dtype, tolerance: float) -> None:
    operands = problem(21, 40, 24)
    assert make_linear(operands, dtype).kernel != "panels"
    check(operands, compute(operands, dtype), tolerance)


@on_devices
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels", [64, 96, 256, 40, 320])
@pytest.mark.parametrize("out_channels", [24, 48, 96, 20])
@pytest.mark.parametrize("size", [(1, 1, 32), (2, 7, 5), (1, 3, 3), (3, 40, 41), (0, 4, 4)])
def test_half_precision_after_a_norm(
    size: tuple[int, ...], out_channels: int, channels: int, dtype: torch.dtype, device: str
) -> None:
    """Sizes with a CUDA kernel and without. A NaN reaches its own pixel only."""
    torch.manual_seed(0)
    features = torch.randn(*size, channels).to(dtype)
    weight, bias = (torch.randn(out_channels, channels) / channels**0.5).to(dtype), torch.randn(out_channels).to(dtype)
    scale, shift, after = torch.randn(channels), torch.randn(channels), torch.randn(2, out_channels)
    activated = (scale * features.float() + shift).relu().to(dtype).double()
    expected = activated @ weight.double().t() + bias.double()
    if size[0]:
        features[0, 0, 1, 2], expected[0, 0, 1] = torch.nan, torch.nan
    layers = [4, out_channels - 4]
    linear = Linear.of_layers(weight.to(device).split(layers), bias.to(device).split(layers))
    features, before = features.to(device), AffineReLU(scale.to(device), shift.to(device))
    plain, normalised = (torch.zeros_like(expected, dtype=dtype, device=device) for _ in range(2))
    project(features, linear, plain, prologue=before)
    project(features, linear, normalised, prologue=before, epilogue=AffineReLU(*after.to(device)))
    tolerance = {torch.float16: 5e-3, torch.bfloat16: 4e-2}[dtype]
    torch.testing.assert_close(plain.cpu().double(), expected, rtol=tolerance, atol=tolerance, equal_nan=True)
    concluded = (after[0].double() * plain.cpu().double() + after[1].double()).relu()
    torch.testing.assert_close(normalised.cpu().double(), concluded, rtol=tolerance, atol=tolerance, equal_nan=True)
    with backend("torch"):
        project(features, linear, normalised, prologue=before)
    torch.testing.assert_close(normalised, plain, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.skipif(NO_CUDA is not None, reason=str(NO_CUDA))
def test_cuda_kernel_of_a_normed_layer() -> None:
    """Which sizes have one; the others leave the result as it is."""
    for pixels, channels, out_channels, dtype in (
        (32, 64, 24, torch.bfloat16),
        (100, 256, 96, torch.float16),
        (31, 64, 24, torch.bfloat16),
        (32, 64, 32, torch.bfloat16),
        (32, 288, 24, torch.float16),
        (32, 64, 24, torch.float32),
    ):
        ones = torch.ones(1, 1, pixels, channels, dtype=dtype, device="cuda")
        weight, coefficients = ones.new_ones(channels, out_channels), ones.new_ones(channels, dtype=torch.float32)
        result = ones.new_zeros(1, 1, pixels, out_channels)
        fits = pixels >= 32 and channels <= 256 and out_channels == {64: 24, 256: 96}.get(channels)
        fits = fits and dtype != torch.float32 and torch.cuda.get_device_capability() >= (8, 0)
        operands = (ones, weight, result.new_zeros(out_channels), coefficients, coefficients, result)
        assert torch.ops.sa_layers.normed_projection(*operands) == fits
        assert torch.equal(result, torch.full_like(result, 2 * channels if fits else 0))
    with pytest.raises(RuntimeError, match="weight must have the shape"):
        torch.ops.sa_layers.normed_projection(ones, weight[:-1], *operands[2:])
    with pytest.raises(RuntimeError, match="result must be contiguous"):
        torch.ops.sa_layers.normed_projection(*operands[:-1], result.new_zeros(1, 1, pixels, 48)[..., ::2])


@needs_kernels
@pytest.mark.parametrize("shape", [(7, 300, 96), (49, 300, 96), (300, 300, 96), (300, 1100, 160), (49, 1100, 160)])
def test_threads_change_no_bit(shape: tuple[int, int, int]) -> None:
    """Threads divide the panels of few pixels, the pixels of many, in another order if the matrix is large."""
    operands, before, results = problem(*shape), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(compute(operands, torch.float32))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_no_pixels() -> None:
    operands = problem(0, 5, 32)
    assert [tuple(result.shape) for result in compute(operands, torch.float32)] == [(1, 1, 0, 32)] * 4


def test_a_nan_reaches_its_own_pixel_only() -> None:
    operands = problem(3, 5, 32)
    operands["features"][0, 0, 1, 2] = torch.nan
    for result in compute(operands, torch.float32):
        assert result[0, 0, 1].isnan().all()
        assert not result[0, 0, [0, 2]].isnan().any()


@needs_kernels
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"result": torch.zeros(4, 63)}, r"result must have the shape \(4, 64\), got \(4, 63\)"),
        ({"weights": [torch.zeros(32, 8)]}, r"result must have the shape \(4, 32\), got \(4, 64\)"),
        ({"weights": [torch.zeros(40, 8)] * 2}, r"result must have the shape \(4, 80\), got \(4, 64\)"),
        (
            {"weights": [torch.zeros(40, 8), torch.zeros(24, 7)]},
            r"weights must have the shape \(24, 8\), got \(24, 7\)",
        ),
        ({"weights": [torch.zeros(64, 8, 1, 2)]}, r"weights must have the shape \(64, 8\), got \(64, 8, 1, 2\)"),
        ({"weights": [torch.zeros(64)]}, r"weights must have 2 dimensions, got the shape \(64\)"),
        ({"weights": [torch.zeros(64, 8).double()]}, "weights must have the dtype"),
        ({"weights": []}, "weights must be a list of tensors"),
        ({"biases": [torch.zeros(64)] * 2}, "biases empty or a list of as many, got 1 and 2"),
        ({"biases": [torch.zeros(63)]}, r"biases must have the shape \(64\), got \(63\)"),
        ({"biases": [torch.zeros(64).double()]}, "biases must have the dtype"),
        ({"shift": torch.zeros(8)}, "scale and shift must be given together"),
        ({"scale": torch.zeros(8), "shift": torch.zeros(7)}, "shift must have the shape"),
        ({"output_scale": torch.zeros(63), "output_shift": torch.zeros(63)}, "output_scale must have the shape"),
        ({"features": torch.zeros(1, 4, 4, 8), "pools": True}, r"result must have the shape \(1, 2, 2, 64\)"),
        (
            {"features": torch.zeros(1, 4, 4, 8), "scale": torch.zeros(8), "shift": torch.zeros(8), "pools": True},
            "scale must not be given",
        ),
        ({"result": torch.zeros(64, 4).t()}, "result must be contiguous"),
        ({"features": torch.zeros(4, 8).double()}, "features must be float32"),
    ],
)
def test_refusals(change: dict[str, Any], message: str) -> None:
    """Calls that would read or write out of bounds."""
    arguments = {
        "features": torch.zeros(4, 8),
        "weights": [torch.zeros(64, 8)],
        "biases": [],
        **dict.fromkeys(("scale", "shift", "output_scale", "output_shift")),
        "result": torch.zeros(4, 64),
        "pools": False,
    }
    torch.ops.sa_layers.projection(**arguments)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.sa_layers.projection(**arguments | change)
