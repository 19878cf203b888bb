"""The layers of aggregation equal their definitions: outputs and gradients, in every dtype and memory format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sa_layers.layers import (
    CARAFE,
    CARAFEPack,
    ConvexUpsampling,
    Involution2d,
    NeighborhoodAggregation,
    OutlookAttention,
    na2d_av,
    na2d_qk,
)
from sa_layers.ops import backend, extension

from .definitions import by_definition


class Case(NamedTuple):
    """A layer and the sizes of its inputs."""

    make: Callable[[], nn.Module]
    sizes: tuple[tuple[int, ...], ...]
    flops: int
    """Of the operators, without linear layers and convolutions."""


CASES = {
    "CARAFE": Case(lambda: CARAFE(3, 2, 2), ((2, 4, 5, 3), (2, 18, 10, 6)), 2 * 2 * 4 * 9 * 60),
    "CARAFE of factor 3": Case(lambda: CARAFE(5, 1, 3), ((1, 2, 3, 4), (1, 25, 9, 12)), 2 * 2 * 25 * 108),
    "CARAFEPack": Case(lambda: CARAFEPack(8, 2, compressed_channels=4), ((2, 8, 5, 4),), 2 * 2 * 8 * 25 * 80),
    "CARAFEPack in groups": Case(
        lambda: CARAFEPack(8, 3, 3, 4, 5, 2, compressed_channels=3), ((1, 8, 4, 5),), 2 * 8 * 9 * 180
    ),
    "ConvexUpsampling": Case(ConvexUpsampling, ((2, 2, 3, 4), (2, 576, 3, 4)), 2 * 2 * 2 * 9 * 768),
    "Involution2d": Case(lambda: Involution2d(32, 3), ((2, 32, 5, 4),), 2 * 2 * 32 * 9 * 20),
    "Involution2d with stride": Case(
        lambda: Involution2d(8, 5, 2, group_channels=4, reduction_ratio=2), ((2, 8, 6, 4),), 2 * 2 * 8 * 25 * 6
    ),
    "Involution2d with dilation": Case(lambda: Involution2d(16, 3, dilation=2), ((1, 16, 5, 6),), 2 * 16 * 9 * 30),
    "OutlookAttention": Case(lambda: OutlookAttention(8, 2), ((2, 4, 5, 8),), 2 * 2 * 8 * 25 * 20),
    "OutlookAttention with stride": Case(
        lambda: OutlookAttention(8, 4, stride=2, qkv_bias=True), ((1, 7, 6, 8),), 2 * 8 * 25 * 42
    ),
    "NeighborhoodAggregation": Case(
        lambda: NeighborhoodAggregation(8, 2, 3, rel_pos_bias=True), ((2, 5, 3, 8),), 2 * 2 * 2 * 8 * 9 * 15
    ),
    "NeighborhoodAggregation with dilation": Case(
        lambda: NeighborhoodAggregation(6, 3, (3, 1), (2, 1), rel_pos_bias=True, qk_scale=0.3),
        ((1, 7, 4, 6),),
        2 * 2 * 6 * 3 * 28,
    ),
}
BACKENDS = [
    pytest.param("native", marks=pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))),
    "torch",
]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A layer with random parameters in float64, in evaluation mode, and its inputs."""
    torch.manual_seed(0)
    layer, sizes, _ = CASES[request.param]
    module = layer().double().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module, tuple(torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes)


def with_gradients(function: Callable[..., Tensor], layer: nn.Module, operands: tuple[Tensor, ...]) -> list[Tensor]:
    """The output, and the gradients of the operands and the parameters."""
    output = function(*operands)
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return [output, *torch.autograd.grad((output * direction).sum(), [*operands, *layer.parameters()])]


@pytest.mark.parametrize("name", BACKENDS)
def test_equals_its_definition(case: tuple[nn.Module, tuple[Tensor, ...]], name: str) -> None:
    """Output and gradients."""
    layer, operands = case
    with backend(name):
        found = with_gradients(layer, layer, operands)
    expected = with_gradients(lambda *items: by_definition(layer, *items), layer, operands)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_memory_formats_and_precisions(case: tuple[nn.Module, tuple[Tensor, ...]]) -> None:
    """Strided inputs change nothing; autocast and float32 change what rounding explains."""
    layer, operands = case
    expected = layer(*operands)
    strided = [item.detach().transpose(1, -1).contiguous().transpose(1, -1) for item in operands]
    torch.testing.assert_close(layer(*strided), expected)
    layer.float()
    inputs = [item.detach().float().requires_grad_() for item in operands]
    torch.testing.assert_close(layer(*inputs).double(), expected, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(*inputs)
    assert output.dtype == torch.bfloat16
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(output.double(), expected, rtol=0, atol=0.1 * scale)
    output.float().sum().backward()
    assert all(item.grad is not None for item in [*inputs, *layer.parameters()])


@pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
@pytest.mark.parametrize("name", CASES)
def test_flops(name: str) -> None:
    """torch's counter adds those of the operators."""
    case = CASES[name]
    layer = case.make()
    with FlopCounterMode(display=False) as counter:
        layer(*(torch.randn(size) for size in case.sizes))
    ours = {key: count for key, count in counter.get_flop_counts()["Global"].items() if "sa_layers" in str(key)}
    assert sum(ours.values()) == case.flops


# One of each kind with a single input.
KINDS = ["CARAFEPack", "Involution2d with stride", "OutlookAttention with stride", "NeighborhoodAggregation"]


@pytest.mark.parametrize("name", KINDS)
def test_compiles_without_a_graph_break(name: str) -> None:
    torch.compiler.reset()
    layer = CASES[name].make().eval()
    (size,) = CASES[name].sizes
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    features = torch.randn(size)
    torch.testing.assert_close(compiled(features), layer(features))


@pytest.mark.parametrize("name", CASES)
def test_no_images(name: str) -> None:
    case = CASES[name]
    operands = [torch.randn(0, *size[1:]) for size in case.sizes]
    expected = case.make().eval()(*(torch.randn(size) for size in case.sizes))
    assert case.make().eval()(*operands).shape == (0, *expected.shape[1:])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CARAFE(4, 1, 2), "up_kernel must be odd, so that there is a centre tap, got 4"),
        (lambda: CARAFE(5, 0, 2), "up_group must be at least 1, got 0"),
        (lambda: CARAFE(5, 3, 2)(torch.ones(1, 4, 2, 2), torch.ones(1, 75, 4, 4)), "number of channels that groups"),
        (lambda: CARAFE(5, 1, 2)(torch.ones(1, 4, 2, 2), torch.ones(1, 25, 2, 2)), r"masks must .*\(1, 25, 4, 4\)"),
        (lambda: CARAFEPack(10, 2, up_group=4), r"up_group must divide channels \(10\), got 4"),
        (lambda: CARAFEPack(8, 0), "scale_factor must be at least 1, got 0"),
        (
            lambda: ConvexUpsampling(8)(torch.ones(1, 2, 3, 3), torch.ones(1, 9, 3, 3)),
            r"kernels must .*\(1, 576, 3, 3\)",
        ),
        (lambda: Involution2d(24, 3), r"group_channels must divide channels \(24\), got 16"),
        (lambda: Involution2d(32, 2), "kernel_size must be odd"),
        (lambda: Involution2d(32, 3)(torch.ones(1, 16, 4, 4)), "features must have 32 channels, got 16"),
        (lambda: OutlookAttention(8, 3), r"num_heads must divide dim \(8\), got 3"),
        (lambda: OutlookAttention(8, 2, padding=2), "padding must be None or 1, which keeps the size, got 2"),
        (lambda: OutlookAttention(8, 2)(torch.ones(1, 8, 4, 4)), r"features must have the shape \(N, H, W, 8\)"),
        (lambda: NeighborhoodAggregation(8, 2, 4), "kernel_size must be odd"),
        (
            lambda: NeighborhoodAggregation(8, 2, 3)(torch.ones(1, 8, 4, 4)),
            r"features must have the shape \(N, H, W, 8\)",
        ),
        (
            lambda: NeighborhoodAggregation(8, 2, 7)(torch.ones(1, 6, 9, 8)),
            r"at least .* \(7, 7\) pixels, got \(6, 9\)",
        ),
    ],
)
def test_errors_name_the_argument(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


NAMES = {
    "CARAFEPack": "channel_compressor.weight channel_compressor.bias content_encoder.weight content_encoder.bias",
    "Involution2d": "conv1.conv.weight conv1.bn.weight conv1.bn.bias conv1.bn.running_mean conv1.bn.running_var "
    "conv1.bn.num_batches_tracked conv2.conv.weight conv2.conv.bias",
    "OutlookAttention": "v.weight attn.weight attn.bias proj.weight proj.bias",
    "NeighborhoodAggregation": "rpb qkv.weight qkv.bias proj.weight proj.bias",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_the_originals(name: str) -> None:
    """Their checkpoints load."""
    assert " ".join(CASES[name].make().state_dict()) == NAMES[name]


@pytest.mark.parametrize("name", ["OutlookAttention", "NeighborhoodAggregation"])
def test_dropout(name: str) -> None:
    """Of everything: the bias of the last layer is left."""
    torch.manual_seed(0)
    kinds = {"OutlookAttention": OutlookAttention(8, 2, attn_drop=1.0)}
    kinds["NeighborhoodAggregation"] = NeighborhoodAggregation(8, 2, 3, attn_drop=1.0)
    layer = kinds[name]
    features = torch.randn(1, 4, 4, 8)
    torch.testing.assert_close(layer(features), layer.proj.bias.expand(1, 4, 4, 8))
    assert not torch.equal(layer.eval()(features), layer.proj.bias.expand(1, 4, 4, 8))


class Everything(nn.Module):
    """A layer of each kind in one program, since exporting takes seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CASES[name].make() for name in KINDS)
        self.upsampling = ConvexUpsampling(2)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = [layer(features) for layer, features in zip(self.layers, inputs, strict=False)]
        return (*outputs, self.upsampling(*inputs[-2:]))


def test_export(tmp_path: Path) -> None:
    """To ONNX, without operators of ours; onnxruntime computes the same."""
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    program = Everything().eval()
    sizes = [CASES[name].sizes[0] for name in KINDS]
    inputs = tuple(torch.randn(size) for size in [*sizes, (1, 2, 3, 4), (1, 36, 3, 4)])
    torch.onnx.export(program, inputs, tmp_path / "layers.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "layers.onnx")
    named = {item.name: tensor.numpy() for item, tensor in zip(session.get_inputs(), inputs, strict=True)}
    for found, expected in zip(session.run(None, named), program(*inputs), strict=True):
        torch.testing.assert_close(torch.from_numpy(found), expected.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dilation", [1, (2, 1)])
def test_functions_of_natten(dilation: int | tuple[int, int]) -> None:
    """What code for NATTEN 0.17 computes from them is what the layer computes."""
    torch.manual_seed(0)
    layer = NeighborhoodAggregation(12, 3, (3, 5), dilation, rel_pos_bias=True).double()
    features = torch.randn(2, 7, 6, 12, dtype=torch.float64)
    query, key, value = layer.qkv(features).view(2, 7, 6, 3, 3, 4).permute(3, 0, 4, 1, 2, 5)
    attn = na2d_qk(layer.scale * query, key, (3, 5), dilation, layer.rpb).softmax(-1)
    attended = na2d_av(attn, value, (3, 5), dilation)
    output = layer.proj(attended.permute(0, 2, 3, 1, 4).flatten(3))
    torch.testing.assert_close(output, layer(features))
    with pytest.raises(ValueError, match=r"query must have the shape \(N, heads, H, W, D\)"):
        na2d_qk(query[0], key, 3)
    with pytest.raises(ValueError, match=r"key must have the shape \(2, 3, 7, 6, 4\)"):
        na2d_qk(query, key[:1], 3)
    with pytest.raises(ValueError, match=r"rpb must have the shape \(3, 5, 9\)"):
        na2d_qk(query, key, (3, 5), rpb=layer.rpb[:, 1:])
    with pytest.raises(ValueError, match=r"attn must have the shape \(2, 3, 7, 6, 9\)"):
        na2d_av(attn, value, 3)
