"""A patchwise layer gives the same results fused and unfused, and is fused only if it is eligible."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sa_layers.layers import PatchwiseSelfAttention, SelfAttentionBlock
from sa_layers.ops import extension, fused

pytestmark = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))


def make(in_channels: int = 12, out_channels: int = 16, kernel_size: int = 3, **options: Any) -> PatchwiseSelfAttention:
    """A layer with random parameters and running statistics."""
    torch.manual_seed(0)
    layer = PatchwiseSelfAttention(in_channels, out_channels, kernel_size, **options)
    for module in layer.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.3, 2)
    return layer.eval()


def features_for(layer: PatchwiseSelfAttention, size: tuple[int, int] = (6, 7)) -> Tensor:
    dtype = layer.query.weight.dtype
    return torch.randn(2, layer.in_channels, *size, generator=torch.Generator().manual_seed(0)).to(dtype)


def why_not(layer: PatchwiseSelfAttention, features: Tensor) -> str | None:
    return layer.why_not_fused(*layer.transform(features))


@torch.no_grad()
def check(layer: PatchwiseSelfAttention, features: Tensor | None = None, tolerance: float = 1e-4) -> Tensor:
    """The layer is fused, and as if it were not."""
    features = features_for(layer) if features is None else features
    assert why_not(layer, features) is None
    output = layer(features)
    with fused(False):
        assert "switched off" in str(why_not(layer, features))
        expected = layer(features)
    scale = expected.abs().max().item()
    assert output.dtype == expected.dtype
    torch.testing.assert_close(output, expected, rtol=0, atol=tolerance * scale)
    return output


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (32, 32), (25, 42)])
@pytest.mark.parametrize(
    "options",
    [
        {"out_channels": 64, "kernel_size": 7},
        {"out_channels": 128, "kernel_size": 5, "stride": 2, "bias": False},
        {"dilation": 2, "padding_mode": "zeros"},
        {"out_channels": 64, "relation": "star", "kernel_size": 7, "padding_mode": "zeros"},
        {"relation": "clique", "stride": 2},
        {"share": 1, "shared_transforms": "query_key"},
        {"share": 4, "shared_transforms": "all"},
        {"relation_channels": 5, "norm_layer": nn.SyncBatchNorm, "act_layer": nn.ReLU},
    ],
    ids=str,
)
def test_same_result(options: dict[str, Any], size: tuple[int, int]) -> None:
    layer = make(**options)
    check(layer, features_for(layer, size))


def test_same_result_in_half_precision() -> None:
    check(make(24, 64, 7).bfloat16(), tolerance=2e-2)


@torch.no_grad()
def test_same_block() -> None:
    torch.manual_seed(0)
    block = SelfAttentionBlock(64, 7, "patchwise").eval()
    features = torch.randn(2, 64, 9, 9)
    output = block(features)
    with fused(False):
        torch.testing.assert_close(output, block(features), rtol=0, atol=1e-4)


def step_of_an_optimizer(layer: PatchwiseSelfAttention) -> PatchwiseSelfAttention:
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    with torch.enable_grad():
        layer(features_for(layer)).square().mean().backward()
    optimizer.step()
    return layer


def load_state_dict(layer: PatchwiseSelfAttention) -> PatchwiseSelfAttention:
    layer.load_state_dict({name: tensor + tensor / 2 for name, tensor in layer.state_dict().items()})
    return layer


def train_a_batch(layer: PatchwiseSelfAttention) -> PatchwiseSelfAttention:
    layer.train()(features_for(layer))
    return layer.eval()


def assign(layer: PatchwiseSelfAttention) -> PatchwiseSelfAttention:
    layer.mapping[5].weight = nn.Parameter(2 * layer.mapping[5].weight)
    return layer


@pytest.mark.parametrize("change", [step_of_an_optimizer, load_state_dict, train_a_batch, assign])
def test_changes_are_seen(change: Callable[[PatchwiseSelfAttention], PatchwiseSelfAttention]) -> None:
    layer = make()
    before = check(layer)
    with torch.no_grad():
        change(layer)
    assert not torch.allclose(check(layer), before)


def test_conversions_are_seen() -> None:
    layer = make()
    check(layer)
    check(layer.bfloat16(), tolerance=2e-2)
    layer.float()
    check(layer)
    with torch.no_grad():
        assert "float32" in str(why_not(layer.double(), features_for(layer)))


def test_copies_and_pickles() -> None:
    layer = make()
    before = check(layer)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(check(twin), before)
        with torch.no_grad():
            twin.mapping[0].weight.mul_(2)
        assert not torch.allclose(check(twin), before)
        torch.testing.assert_close(check(layer), before)


@pytest.mark.parametrize("name", ["mapping", "mapping.0", "mapping.1", "mapping.5"])
@torch.no_grad()
def test_hooks_are_called(name: str) -> None:
    layer, seen = make(), []
    handle = layer.get_submodule(name).register_forward_hook(lambda *arguments: seen.append(arguments))
    assert "has a forward hook" in str(why_not(layer, features_for(layer)))
    layer(features_for(layer))
    assert len(seen) == 1
    handle.remove()
    check(layer)


@torch.no_grad()
def test_global_hooks_are_called() -> None:
    layer, seen = make(), []
    handle = nn.modules.module.register_module_forward_pre_hook(lambda module, _: seen.append(module))
    try:
        layer(features_for(layer))
    finally:
        handle.remove()
    assert layer.mapping[0] in seen


class Doubled(nn.Conv2d):
    def forward(self, features: Tensor) -> Tensor:
        return 2 * super().forward(features)


def replace_a_layer(layer: PatchwiseSelfAttention) -> None:
    layer.mapping[5] = Doubled(layer.weight_channels, 9 * layer.weight_channels, 1)


def patch_a_method(layer: PatchwiseSelfAttention) -> None:
    layer.mapping[1].forward = torch.tanh


@pytest.mark.parametrize(
    ("options", "change", "reason"),
    [
        ({"mapping_layers": 1}, None, "does not consist of two linear layers"),
        ({"mapping_layers": 3}, None, "does not consist of two linear layers"),
        ({"act_layer": nn.GELU}, None, "mapping.1 is a GELU"),
        ({"norm_layer": lambda channels: nn.GroupNorm(1, channels)}, None, "mapping.0 is a GroupNorm"),
        ({"norm_layer": lambda channels: nn.BatchNorm2d(channels, affine=False)}, None, "no weight"),
        ({}, replace_a_layer, "mapping.5 is a Doubled"),
        ({}, patch_a_method, "mapping.1 has a forward hook"),
    ],
)
@torch.no_grad()
def test_refusals(options: dict[str, Any], change: Callable[[nn.Module], Any] | None, reason: str) -> None:
    torch.manual_seed(0)
    layer = PatchwiseSelfAttention(12, 16, 3, **options).eval()
    if change is not None:
        change(layer)
    features = features_for(layer)
    assert reason in str(why_not(layer, features))
    assert layer(features).shape == (2, 16, 6, 7)


def test_gradients_are_those_of_the_modules() -> None:
    layer = make()
    features = features_for(layer).requires_grad_()
    assert why_not(layer, features) is None
    layer(features).sum().backward()
    assert features.grad is not None
    assert all(parameter.grad is not None for parameter in layer.parameters())
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    assert why_not(layer, features.detach()) is None


@torch.no_grad()
def test_exports_without_the_extension() -> None:
    layer = make()
    features = features_for(layer)
    program = torch.export.export(layer, (features,))
    assert not any("sa_layers" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(features), layer(features), rtol=0, atol=1e-3)


@torch.no_grad()
def test_compiles() -> None:
    layer = make()
    features = features_for(layer)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(features), layer(features), rtol=1e-4, atol=1e-4)
    layer.mapping[5].bias += 1
    torch.testing.assert_close(compiled(features), layer(features), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_inference_mode() -> None:
    check(make())
