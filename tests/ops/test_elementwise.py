"""The operators of evaluation around the linear layers, native and in plain torch, against float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from sa_layers.ops import AffineReLU, backend, extension
from sa_layers.ops.affine_relu import affine_relu, affine_relu_
from sa_layers.ops.max_pooling import max_pooling
from sa_layers.ops.pooled_projection import pooled_projection
from sa_layers.ops.projection import Linear, project

from .devices import NO_CUDA, on_devices

needs_kernels = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
on_backends = pytest.mark.parametrize("name", ["torch", pytest.param("native", marks=needs_kernels)])
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
on_dtypes = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
# One instruction loads 16 bytes of the channels, or one of them.
on_channels = pytest.mark.parametrize("channels", [1, 3, 5, 8, 64, 200])


def normal(*shape: int, device: str, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).to(device, dtype)


def coefficients(*shape: int, like: Tensor) -> Tensor:
    return normal(*shape, device=like.device.type, dtype=torch.promote_types(like.dtype, torch.float32))


def pool(features: Tensor) -> Tensor:
    """On the CPU: of a float64 map of one channel, torch 2.11's kernel for CUDA reads from an address it may not."""
    return F.max_pool2d(features.cpu().permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1).to(features.device)


def skip_where_torch_fails(name: str, device: str, channels: int, dtype: torch.dtype) -> None:
    if (name, device, channels, dtype) == ("torch", "cuda", 1, torch.float64):
        pytest.skip("torch's own kernel fails, see pool")


def check(result: Tensor, expected: Tensor, dtype: torch.dtype, growth: float = 1) -> None:
    """They agree, and have NaN at the same elements."""
    assert result.dtype == dtype
    assert result.shape == expected.shape
    scale = expected.nan_to_num().abs().max().item() if expected.numel() else 1.0
    tolerance = growth * TOLERANCES[dtype] * (1 + scale)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=tolerance, equal_nan=True)


@on_backends
@on_devices
@on_dtypes
@on_channels
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 7, 5), (3, 40, 41), (0, 4, 4)])
def test_affine_relu(size: tuple[int, ...], channels: int, dtype: torch.dtype, device: str, name: str) -> None:
    """Also in place, and of slices of the channels. NaN stays NaN."""
    torch.manual_seed(0)
    wide = normal(*size, channels + 3, device=device, dtype=dtype)
    if size[0]:
        wide[0, 0, 0, 0] = torch.nan
    norm = AffineReLU(coefficients(channels, like=wide), coefficients(channels, like=wide))
    for features in (wide[..., :channels], wide[..., :channels].contiguous(), wide[..., 3:].contiguous()):
        expected = (norm.scale.double() * features.double() + norm.shift.double()).relu()
        kept = features.clone()
        with backend(name):
            result = affine_relu(features, *norm)
            assert torch.equal(features.nan_to_num(), kept.nan_to_num())
            affine_relu_(features, *norm)
        assert result.is_contiguous()
        check(result, expected, dtype)
        assert torch.equal(features.nan_to_num(), result.nan_to_num())
        assert torch.equal(features.isnan(), expected.isnan())


@on_backends
@on_devices
@on_dtypes
def test_unaligned_features(dtype: torch.dtype, device: str, name: str) -> None:
    """A contiguous map that begins anywhere."""
    memory = normal(1 + 2 * 6 * 6 * 8, device=device, dtype=dtype)
    features = memory[1:].view(2, 6, 6, 8)
    scale, shift = coefficients(8, like=memory), coefficients(8, like=memory)
    with backend(name):
        check(affine_relu(features, scale, shift), (scale.double() * features.double() + shift).relu(), dtype)
        assert torch.equal(max_pooling(features).double(), pool(features.double()))


@on_backends
@on_devices
@on_dtypes
@on_channels
@pytest.mark.parametrize("size", [(1, 2, 2), (2, 7, 10), (3, 8, 9), (1, 31, 37)])
def test_max_pooling(size: tuple[int, ...], channels: int, dtype: torch.dtype, device: str, name: str) -> None:
    skip_where_torch_fails(name, device, channels, dtype)
    torch.manual_seed(0)
    features = normal(*size, channels, device=device, dtype=dtype)
    features[0, 1, 0, 0] = torch.nan
    expected = pool(features.double())
    assert expected[0, 0, 0, 0].isnan()
    for operand in (features, features.transpose(1, 2).contiguous().transpose(1, 2)):
        with backend(name):
            check(max_pooling(operand), expected, dtype)


@on_backends
@on_devices
@on_dtypes
@on_channels
@pytest.mark.parametrize("size", [(1, 2, 2), (2, 7, 10), (3, 8, 9), (1, 31, 37)])
def test_max_pooling_after_a_norm(
    size: tuple[int, ...], channels: int, dtype: torch.dtype, device: str, name: str
) -> None:
    """Equal to the bit to a norm and a pooling that write a map each."""
    skip_where_torch_fails(name, device, channels, dtype)
    torch.manual_seed(0)
    features = normal(*size, channels, device=device, dtype=dtype)
    features[0, 1, 0, 0] = torch.nan
    norm = AffineReLU(coefficients(channels, like=features), coefficients(channels, like=features))
    with backend(name):
        activated = affine_relu(features, *norm).cpu().double()
        expected = F.max_pool2d(activated.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
        assert expected.isnan().sum() == 1
        for operand in (features, features.transpose(1, 2).contiguous().transpose(1, 2)):
            result = max_pooling(operand, *norm)
            assert result.dtype == dtype
            torch.testing.assert_close(result.cpu().double(), expected, rtol=0, atol=0, equal_nan=True)


@on_backends
@on_devices
@on_dtypes
@pytest.mark.parametrize("channels", [1, 5, 8, 64])
@pytest.mark.parametrize("inputs", [1, 3, 4])
@pytest.mark.parametrize("size", [(2, 2), (7, 10), (8, 9), (60, 44)])
def test_pooled_projection(
    size: tuple[int, int], inputs: int, channels: int, dtype: torch.dtype, device: str, name: str
) -> None:
    """In every layout of an image, slices included. A NaN reaches its own pixel; native kernels keep it there."""
    torch.manual_seed(0)
    wide = normal(2, inputs, size[0], size[1] + 1, device=device, dtype=dtype)
    weight, shift = coefficients(inputs, channels, like=wide), coefficients(channels, like=wide)
    for with_nan in (False, True):
        if with_nan:
            wide[0, 0, 1, 1] = torch.nan
        for image in (wide[..., :-1], wide[..., 1:], wide[..., 1:].contiguous(memory_format=torch.channels_last)):
            projected = torch.einsum("nkhw,kc->nchw", image.double(), weight.double()) + shift.double()[:, None, None]
            expected = pool(projected.permute(0, 2, 3, 1)).relu()
            assert expected[0, 0, 0].isnan().all() == with_nan
            with backend(name):
                result = pooled_projection(image, weight, shift)
            assert result.is_contiguous()
            if with_nan and name == "torch":  # oneDNN's bfloat16 convolution spreads a NaN to a neighbouring pixel
                assert result[0, 0, 0].isnan().all()
                continue
            # cuDNN may round factors to TF32; plain torch rounds the shift and the sums to the image's dtype.
            rounding = 1e3 if name == "torch" and device == "cuda" and dtype == torch.float32 else 4
            check(result, expected, dtype, rounding)


@needs_kernels  # which Linear takes for granted in float32 on the CPU
@on_devices
@on_dtypes
def test_a_linear_layer_between_pooling_and_a_norm(dtype: torch.dtype, device: str) -> None:
    torch.manual_seed(0)
    features, weight = (normal(*shape, device=device, dtype=dtype) for shape in ((2, 9, 12, 16), (40, 16)))
    after = AffineReLU(coefficients(40, like=features), coefficients(40, like=features))
    to = normal(2, 4, 6, 40, device=device, dtype=dtype)
    pooled = F.max_pool2d(features.double().permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    expected = (after.scale.double() * (to.double() + pooled @ weight.double().t()) + after.shift.double()).relu()
    project(features, Linear.of_layers([weight], [None]), to, accumulate=True, epilogue=after, pool=True)
    check(to, expected, dtype, 4)


@needs_kernels
@on_devices
@on_dtypes
@pytest.mark.parametrize("pools", [False, True])
def test_a_linear_layer_after_a_norm_and_pooling(pools: bool, dtype: torch.dtype, device: str) -> None:
    torch.manual_seed(0)
    features, weight = (normal(*shape, device="cpu", dtype=dtype) for shape in ((2, 9, 12, 64), (24, 64)))
    before = AffineReLU(coefficients(64, like=features), coefficients(64, like=features))
    expected = (before.scale * features + before.shift).relu().to(dtype).double()
    if pools:
        expected = F.max_pool2d(expected.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    expected = expected @ weight.double().t()
    to = torch.zeros_like(expected, dtype=dtype, device=device)
    norm = AffineReLU(before.scale.to(device), before.shift.to(device))
    linear = Linear.of_layers([weight.to(device)], [None])
    project(features.to(device), linear, to, prologue=norm, pool=pools)
    check(to.cpu(), expected, dtype, 4)


OPERATORS: dict[str, Callable[..., Tensor]] = {
    "affine_relu": lambda x: affine_relu(x, x.new_ones(8), x.new_ones(8)),
    "max_pooling": max_pooling,
    "max_pooling after a norm": lambda x: max_pooling(x, x.new_ones(8), x.new_ones(8)),
    "pooled_projection": lambda x: pooled_projection(x.permute(0, 3, 1, 2), x.new_ones(8, 16), x.new_ones(16)),
}


@on_devices
@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_fake_and_meta_tensors(operator: Callable[..., Tensor], device: str) -> None:
    """Fake tensors of the device, and those of the device 'meta', have the result's shape."""
    expected = operator(torch.randn(2, 7, 6, 8, device=device))
    with FakeTensorMode():
        assert operator(torch.empty(2, 7, 6, 8, device=device)).shape == expected.shape
    assert operator(torch.empty(2, 7, 6, 8, device="meta")).shape == expected.shape


@on_devices
@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_compiled(operator: Callable[..., Tensor], device: str) -> None:
    features = torch.randn(2, 6, 7, 8, device=device)
    compiled = torch.compile(operator, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(features), operator(features))


@on_devices
def test_compiled_in_place(device: str) -> None:
    def concluded(features: Tensor) -> Tensor:
        features = features + 1
        affine_relu_(features, features.new_full((8,), 2.0), features.new_ones(8))
        return features * 2

    features = torch.randn(2, 6, 7, 8, device=device)
    with torch.no_grad():
        compiled = torch.compile(concluded, fullgraph=True, backend="aot_eager")(features)
    torch.testing.assert_close(compiled, 2 * (2 * (features + 1) + 1).relu())


@pytest.mark.skipif(NO_CUDA is not None, reason=str(NO_CUDA))
def test_streams_and_graphs() -> None:
    features, scale, shift = (torch.randn(*shape, device="cuda") for shape in ((4, 56, 56, 64), (64,), (64,)))
    image, weight = torch.randn(4, 3, 112, 112, device="cuda"), torch.randn(3, 64, device="cuda")

    def compute() -> tuple[Tensor, ...]:
        changed = features.clone()
        affine_relu_(changed, scale, shift)
        return changed, max_pooling(affine_relu(features, scale, shift)), pooled_projection(image, weight, shift)

    expected = compute()
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # on another stream the kernels would not wait for the copy
        results = compute()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        replayed = compute()
    graph.replay()
    for others in (results, replayed):
        assert all(map(torch.equal, others, expected))


@needs_kernels
@on_devices
def test_refusals(device: str) -> None:
    """Calls that would read or write out of bounds."""
    call, (features, ones) = torch.ops.sa_layers, (torch.zeros(size, device=device) for size in ((1, 4, 4, 8), (8,)))
    for operator in (call.affine_relu, call.affine_relu_):
        with pytest.raises(RuntimeError, match="4 dimensions"):
            operator(features[0], ones, ones)
        with pytest.raises(RuntimeError, match="scale must have the shape"):
            operator(features, ones[:7], ones)
        with pytest.raises(RuntimeError, match="shift must have the dtype"):
            operator(features, ones, ones.double())
        with pytest.raises(RuntimeError, match="float32, float64"):
            operator(features.int(), ones, ones)
    with pytest.raises(RuntimeError, match="features must be contiguous"):
        call.affine_relu_(features.transpose(1, 2)[:, ::2], ones, ones)
    with pytest.raises(RuntimeError, match="weight must have the shape"):
        call.pooled_projection(features, features.new_zeros(3, 8), ones)
    if device == "cuda":
        with pytest.raises(RuntimeError, match="4 dimensions"):
            call.max_pooling(features[0])
        with pytest.raises(RuntimeError, match="scale and shift must be given together"):
            call.max_pooling(features, ones)
        with pytest.raises(RuntimeError, match="shift must have the shape"):
            call.max_pooling(features, ones, ones[:7])
