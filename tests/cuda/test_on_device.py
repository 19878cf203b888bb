"""The CUDA kernels on a GPU, against plain torch in float64."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._pytree import tree_map

from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention, SelfAttentionBlock
from sa_layers.ops import (
    PATCHWISE_RELATIONS,
    MappingLayer,
    PairPosition,
    aggregation,
    backend,
    extension,
    fused,
    pairwise_attention,
    pairwise_relation,
    softmax_aggregation,
)
from sa_layers.ops.pairwise_relation import PAIRWISE_RELATIONS

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here"),
    pytest.mark.skipif(extension.why_not_cuda() is not None, reason=str(extension.why_not_cuda())),
]


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN uses TF32 by default, and then the unfused modules are inaccurate."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
# batch, channels, weight channels, height, width, kernel, stride, dilation: tiles by rows, tiles by columns,
# several maps per block, many channels, maps smaller than the footprint, and problems for the general kernels.
GEOMETRIES = [
    (2, 16, 2, 112, 112, 3, 1, 1),
    (2, 64, 8, 56, 56, 7, 1, 1),
    (2, 64, 8, 50, 83, 7, 1, 1),
    (40, 256, 32, 14, 14, 7, 1, 1),
    (40, 512, 64, 7, 7, 7, 1, 1),
    (1, 40, 2, 28, 28, 5, 1, 1),
    (1, 7, 1, 2, 300, 7, 1, 1),
    (2, 16, 2, 33, 31, 7, 2, 1),
    (2, 16, 2, 33, 31, (3, 5), (1, 2), (2, 3)),
    (0, 16, 2, 9, 9, 3, 1, 1),
]


def pair(number: int | tuple[int, int]) -> tuple[int, int]:
    return number if isinstance(number, tuple) else (number, number)


def operands(geometry: tuple, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, tuple]:
    batch, channels, weight_channels, height, width, kernel, stride, dilation = geometry
    torch.manual_seed(0)
    taps, step = pair(kernel)[0] * pair(kernel)[1], pair(stride)
    pixels = -(-height // step[0]) * -(-width // step[1])
    value = torch.randn(batch, channels, height, width, device="cuda").to(dtype)
    weight = torch.randn(batch, weight_channels, taps, pixels, device="cuda").div(taps**0.5).to(dtype)
    return value, weight, (kernel, stride, dilation)


def outputs_and_gradients(function, first: torch.Tensor, second: torch.Tensor, kernels: str) -> list[torch.Tensor]:
    first, second = first.detach().requires_grad_(), second.detach().requires_grad_()
    with backend(kernels):
        output = function(first, second)
        gradient = torch.linspace(-1, 1, output.numel(), device="cuda", dtype=torch.float64).view_as(output)
        output.backward(gradient.to(output.dtype))
    return [output.detach(), first.grad, second.grad]


def assert_agrees(function, first: torch.Tensor, second: torch.Tensor) -> None:
    results = outputs_and_gradients(function, first, second, "native")
    expected = outputs_and_gradients(function, first.double(), second.double(), "torch")
    for result, exact in zip(results, expected, strict=True):
        assert result.dtype == first.dtype
        scale = float(exact.abs().max()) if exact.numel() else 1.0
        torch.testing.assert_close(result.double(), exact, rtol=0, atol=TOLERANCE[first.dtype] * max(scale, 1.0))


@pytest.mark.parametrize("padding_mode", ["reflect", "zeros"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("operator", [aggregation, softmax_aggregation])
def test_aggregations(operator, geometry: tuple, dtype: torch.dtype, padding_mode: str) -> None:
    value, weight, footprint = operands(geometry, dtype)
    assert_agrees(lambda x, w: operator(x, w, *footprint, padding_mode), value, weight)


@pytest.mark.parametrize("padding_mode", ["reflect", "zeros"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("relation", PAIRWISE_RELATIONS)
@pytest.mark.parametrize("geometry", [GEOMETRIES[1], GEOMETRIES[7], GEOMETRIES[8]], ids=str)
def test_pairwise_relations(geometry: tuple, relation: str, dtype: torch.dtype, padding_mode: str) -> None:
    query, _, (kernel, stride, dilation) = operands(geometry, dtype)
    key = torch.randn_like(query)
    assert_agrees(lambda q, k: pairwise_relation(q, k, kernel, relation, stride, dilation, padding_mode), query, key)


@pytest.mark.parametrize("operator", [aggregation, softmax_aggregation])
def test_derivatives(operator) -> None:
    value, weight, footprint = operands((1, 4, 2, 5, 6, 3, 1, 1), torch.float64)
    inputs = (value.requires_grad_(), weight.requires_grad_())
    with backend("native"):
        assert gradcheck(lambda x, w: operator(x, w, *footprint), inputs)
        assert gradgradcheck(lambda x, w: operator(x, w, *footprint), inputs)


def test_strided_operands() -> None:
    value, weight, footprint = operands(GEOMETRIES[1], torch.float32)
    wide = torch.randn(*value.shape[:3], 2 * value.shape[3], device="cuda")
    for strided in (value.contiguous(memory_format=torch.channels_last), wide[..., ::2], wide[..., 1:57]):
        assert_agrees(lambda x, w: aggregation(x, w, *footprint), strided, weight)


def test_results_are_the_same_every_time() -> None:
    value, weight, footprint = operands(GEOMETRIES[1], torch.float32)
    runs = [
        outputs_and_gradients(lambda x, w: aggregation(x, w, *footprint), value, weight, "native") for _ in range(3)
    ]
    for run in runs[1:]:
        for one, other in zip(runs[0], run, strict=True):
            assert torch.equal(one, other)


def test_kernels_run_on_the_current_stream() -> None:
    value, weight, footprint = operands(GEOMETRIES[1], torch.float32)
    expected = aggregation(value, weight, *footprint)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # kernels on another stream would not wait for this copy
        output = aggregation(value.clone(), weight.clone(), *footprint)
    stream.synchronize()
    assert torch.equal(output, expected)


def test_kernels_can_be_captured_in_a_graph() -> None:
    value, weight, footprint = operands(GEOMETRIES[1], torch.float32)
    expected = aggregation(value, weight, *footprint)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = aggregation(value, weight, *footprint)
    output.zero_()
    graph.replay()
    assert torch.equal(output, expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU is here")
def test_kernels_run_on_the_operands_device() -> None:
    value, weight, footprint = operands(GEOMETRIES[1], torch.float32)
    expected = aggregation(value, weight, *footprint)
    output = aggregation(value.to("cuda:1"), weight.to("cuda:1"), *footprint)
    assert output.device == torch.device("cuda:1")
    assert torch.equal(output.to("cuda:0"), expected)


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.mem_get_info()[0] < 20e9, reason="20 GB of GPU memory are not free"
)
def test_offsets_beyond_32_bits() -> None:
    """A weight of more than 2^31 elements: its last corner equals that of a small map."""
    side = 15_500
    value = torch.randn(1, 1, side, side, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(1, 1, 9, side * side, device="cuda", dtype=torch.bfloat16)
    corner = weight.unflatten(3, (side, side))[..., -9:, -9:].flatten(3)
    expected = aggregation(value[..., -9:, -9:], corner, 3)[..., 1:, 1:]
    torch.testing.assert_close(aggregation(value, weight, 3)[..., -8:, -8:], expected, rtol=2e-2, atol=2e-2)


def test_autocast() -> None:
    value, weight, footprint = operands(GEOMETRIES[1], torch.float32)
    with torch.autocast("cuda", torch.bfloat16):
        output = aggregation(value.bfloat16(), weight, *footprint)
    assert output.dtype == torch.bfloat16


def layer(kernel_size: int = 7, **options: object) -> PairwiseSelfAttention:
    """A pairwise layer in evaluation; tests/ops has the operator itself."""
    torch.manual_seed(0)
    return PairwiseSelfAttention(64, 64, kernel_size, **options).cuda().eval().requires_grad_(False)


def patchwise_layer(kernel_size: int = 7, **options: object) -> PatchwiseSelfAttention:
    """A patchwise layer in evaluation."""
    torch.manual_seed(0)
    return PatchwiseSelfAttention(64, 64, kernel_size, **options).cuda().eval().requires_grad_(False)


def compare_layer(module: torch.nn.Module, features: torch.Tensor, tolerance: float) -> torch.Tensor:
    with fused(False):
        expected = module(features)
    output = module(features)
    assert (output - expected).abs().max() <= tolerance * expected.abs().max()
    return output


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float16, 1e-2), (torch.bfloat16, 6e-2)])
@pytest.mark.parametrize("relation", PAIRWISE_RELATIONS)
def test_a_pairwise_layer_is_fused(relation: str, dtype: torch.dtype, tolerance: float) -> None:
    attention = layer(relation=relation).to(dtype)
    features = torch.randn(3, 64, 14, 15, device="cuda", dtype=dtype)
    assert attention.why_not_fused(*attention.transform(features)) is None
    compare_layer(attention, features, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float16, 1e-2), (torch.bfloat16, 6e-2)])
@pytest.mark.parametrize("relation", PATCHWISE_RELATIONS)
def test_a_patchwise_layer_is_fused(relation: str, dtype: torch.dtype, tolerance: float) -> None:
    attention = patchwise_layer(3 if relation == "clique" else 7, relation=relation).to(dtype)
    features = torch.randn(3, 64, 14, 15, device="cuda", dtype=dtype)
    assert attention.why_not_fused(*attention.transform(features)) is None
    compare_layer(attention, features, tolerance)


def test_a_patchwise_layer_is_fused_in_float64() -> None:
    attention = patchwise_layer().double()
    features = torch.randn(2, 64, 9, 8, device="cuda", dtype=torch.float64)
    assert attention.why_not_fused(*attention.transform(features)) is None
    compare_layer(attention, features, 1e-11)


@pytest.mark.parametrize("frozen_norms", [False, True])
def test_a_pairwise_layer_trains_with_its_channels_side_by_side(frozen_norms: bool) -> None:
    on_device = layer().double().requires_grad_().train(not frozen_norms)
    for parameter in on_device.mapping.parameters():
        torch.nn.init.normal_(parameter)  # otherwise distances of 0 are at the ReLU's bend
    layers = {"cuda": on_device, "cpu": copy.deepcopy(on_device).cpu()}
    layouts = []
    on_device.mapping[0].register_forward_pre_hook(
        lambda _, inputs: layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    features, results = torch.randn(2, 64, 9, 8, dtype=torch.float64), []
    for device, attention in layers.items():
        of_device = features.to(device).requires_grad_()
        output = attention(of_device)
        gradients = torch.autograd.grad(output.square().sum(), [of_device, *attention.parameters()])
        results.append([tensor.cpu() for tensor in (output, *gradients, *attention.buffers())])
    for result, exact in zip(*results, strict=True):
        torch.testing.assert_close(result, exact, rtol=1e-9, atol=1e-9)
    assert layouts == [True]


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_a_block_passes_its_norm_and_relu(attention: str) -> None:
    torch.manual_seed(0)
    block = SelfAttentionBlock(256, 7, attention=attention).cuda().eval().requires_grad_(False)
    for layout in (torch.contiguous_format, torch.channels_last):
        compare_layer(block, torch.randn(5, 256, 7, 7, device="cuda").to(memory_format=layout), 1e-4)


@pytest.mark.parametrize("make", [layer, patchwise_layer])
def test_the_fused_kernels_in_streams_and_graphs(make) -> None:
    attention, features = make(), torch.randn(2, 64, 28, 28, device="cuda")
    expected = compare_layer(attention, features, 1e-4)
    assert torch.equal(attention(features), expected)  # deterministic
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        output = attention(features.clone())
    stream.synchronize()
    assert torch.equal(output, expected)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = attention(features)
    output.zero_()
    graph.replay()
    assert torch.equal(output, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("make", [layer, patchwise_layer])
def test_a_write_to_a_parameter_is_seen_at_the_next_call(make, dtype: torch.dtype) -> None:
    attention, features = make().to(dtype), torch.randn(2, 64, 28, 28, device="cuda", dtype=dtype)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-2
    before = compare_layer(attention, features, tolerance)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = attention(features)
    for tensor in (*attention.mapping.parameters(), *attention.mapping.buffers()):
        if tensor.is_floating_point():
            tensor.data.mul_(1.5)  # without a new version of the tensor
    after = compare_layer(attention, features, tolerance)
    assert not torch.equal(after, before)
    graph.replay()
    assert torch.equal(output, after)


@pytest.fixture
def tf32() -> Iterator[None]:
    """Allows TF32 in torch."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


# The dtypes of tensor cores; Turing has them for float16 only, older GPUs for none.
TENSOR_CORE_ERRORS = {torch.float32: 4e-3, torch.float16: 4e-3, torch.bfloat16: 3e-2}
# relation channels, value channels, weight channels, side, batch: SAN's stages, and widths that do not fill a tile
STAGES = [
    (4, 16, 2, 112, 2),
    (16, 64, 8, 56, 2),
    (32, 128, 16, 28, 2),
    (64, 256, 32, 14, 2),
    (128, 512, 64, 7, 1),
    (128, 512, 64, 7, 64),
    (7, 15, 5, 9, 3),
    (190, 380, 190, 7, 2),
]


def in_float64(item: object) -> object:
    return item.double() if isinstance(item, torch.Tensor) else item


def attend(
    stage: tuple, dtype: torch.dtype, relation: str = "subtraction", kernel_size: int = 7
) -> tuple[torch.Tensor, torch.Tensor]:
    """The fused operator in the dtype, and the unfused ones in float64."""
    channels, value_channels, weight_channels, side, batch = stage
    generator = torch.Generator("cuda").manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device="cuda", generator=generator)

    maps = [normal(batch, number, side, side).to(dtype) for number in (channels, channels, value_channels)]
    maps = [item.to(memory_format=torch.channels_last) for item in maps]
    width = 2 + {"dot": 1, "concatenation": 2 * channels}.get(relation, channels)
    scale = (channels if relation == "dot" else 1) ** -0.5
    sizes = [(width, channels, scale), (channels, weight_channels, 1)]
    mapping = [
        MappingLayer(normal(one) * factor, normal(one), normal(other, one) / one**0.5, normal(other))
        for one, other, factor in sizes
    ]
    position = PairPosition(normal(2, 3), normal(2, 3))
    output = pairwise_attention(*maps, mapping, kernel_size, relation, position=position)
    *maps, mapping, position = tree_map(in_float64, (*maps, mapping, position))
    with fused(False):
        return output, pairwise_attention(*maps, mapping, kernel_size, relation, position=position)


@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize("dtype", TENSOR_CORE_ERRORS, ids=str)
@pytest.mark.parametrize("stage", STAGES, ids=str)
def test_tensor_cores_on_small_maps_and_large(stage: tuple, dtype: torch.dtype) -> None:
    for relation in PAIRWISE_RELATIONS if stage[3] < 10 else ("subtraction",):
        output, expected = attend(stage, dtype, relation, 3 if stage[3] == 112 else 7)
        error = (output.double() - expected).abs().max() / expected.abs().max()
        assert error <= TENSOR_CORE_ERRORS[dtype], relation


def test_float32_is_rounded_to_tf32_only_where_it_may(tf32: None) -> None:
    output, expected = attend(STAGES[1], torch.float32)
    rounded = (output.double() - expected).abs().max() / expected.abs().max()
    torch.backends.cuda.matmul.allow_tf32 = False
    output, _ = attend(STAGES[1], torch.float32)
    exact = (output.double() - expected).abs().max() / expected.abs().max()
    assert exact <= 1e-5
    if torch.cuda.get_device_capability() >= (8, 0):
        assert rounded > 3 * exact


def test_too_wide_a_mapping_is_left_to_the_unfused_operators() -> None:
    attention = layer(3, relation_channels=400)
    features = torch.randn(1, 64, 5, 5, device="cuda")
    assert "more than 384 channels" in str(attention.why_not_fused(*attention.transform(features)))
    compare_layer(attention, features, 1e-6)


def test_too_many_weights_are_left_to_the_unfused_operators() -> None:
    torch.manual_seed(0)
    attention = PatchwiseSelfAttention(16, 520, 3, share=1).cuda().eval().requires_grad_(False)
    features = torch.randn(1, 16, 5, 5, device="cuda")
    assert "more than 512 weight channels" in str(attention.why_not_fused(*attention.transform(features)))
    compare_layer(attention, features, 1e-6)
