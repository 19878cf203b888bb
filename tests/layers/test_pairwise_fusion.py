"""A pairwise layer in evaluation computes by the fused operator: the same result, whatever happens to the layer."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sa_layers.layers import PairwiseSelfAttention, SelfAttentionBlock
from sa_layers.ops import PAIRWISE_RELATIONS, backend, extension, fused
from sa_layers.ops.pairwise_attention import pairwise_attention_fused as operator

pytestmark = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))

FEATURES = torch.randn(2, 16, 9, 7, generator=torch.Generator().manual_seed(1))


def make(**options: Any) -> PairwiseSelfAttention:
    """A layer of random parameters and running statistics, in evaluation."""
    torch.manual_seed(0)
    layer = PairwiseSelfAttention(16, 32, **{"kernel_size": 7} | options)
    randomise(layer)
    return layer.eval()


def randomise(module: nn.Module) -> None:
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)


def refusal(layer: PairwiseSelfAttention, features: Tensor = FEATURES) -> str | None:
    return layer.why_not_fused(*layer.transform(features))


def check(layer: nn.Module, features: Tensor = FEATURES, tolerance: float = 1e-4) -> Tensor:
    """Fused equals unfused, relative to the largest output."""
    with torch.no_grad():
        output = layer(features)
        with fused(False):
            expected = layer(features)
    torch.testing.assert_close(output, expected, rtol=0, atol=tolerance * expected.abs().max().item())
    return output


@pytest.mark.parametrize("shared_transforms", [None, "query_key", "all"])
@pytest.mark.parametrize("mapping_layers", [1, 2, 3])
@pytest.mark.parametrize("position", ["relative", "absolute", None])
@pytest.mark.parametrize("relation", PAIRWISE_RELATIONS)
def test_every_combination(
    relation: str, position: str | None, mapping_layers: int, shared_transforms: str | None
) -> None:
    options = {"position": position, "mapping_layers": mapping_layers, "shared_transforms": shared_transforms}
    layer = make(relation=relation, kernel_size=3, **options)
    with torch.no_grad():
        assert refusal(layer) is None
    check(layer)


@pytest.mark.parametrize("padding_mode", ["reflect", "zeros"])
@pytest.mark.parametrize(("kernel_size", "stride", "dilation"), [(7, 1, 1), (5, 2, 1), (3, 1, 2), ((3, 7), (1, 2), 2)])
def test_geometries(kernel_size: Any, stride: Any, dilation: int, padding_mode: str) -> None:
    layer = make(kernel_size=kernel_size, stride=stride, dilation=dilation, padding_mode=padding_mode)
    for size in ((9, 7), (2, 3), (1, 1), (16, 33)):
        check(layer, torch.randn(1, 16, *size))


@pytest.mark.parametrize("options", [{"position_size": 14}, {"bias": False}, {"share": 4}, {"relation_channels": 5}])
def test_options(options: dict[str, Any]) -> None:
    check(make(**options))


def test_dtypes() -> None:
    check(make().double(), FEATURES.double(), 1e-10)
    check(make().bfloat16(), FEATURES.bfloat16(), 5e-2)
    wide = make()
    with torch.no_grad(), fused(False):
        expected = wide(FEATURES)
    with torch.no_grad():
        half = copy.deepcopy(wide).bfloat16()(FEATURES.bfloat16()).float()
        with torch.autocast("cpu", torch.bfloat16):
            cast = wide(FEATURES)
    assert cast.dtype == torch.bfloat16
    for output in (half, cast.float()):
        assert (output - expected).norm() < 2e-2 * expected.norm()


def step(layer: PairwiseSelfAttention) -> None:
    layer(FEATURES).square().sum().backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()


def load(layer: PairwiseSelfAttention) -> None:
    other = copy.deepcopy(layer)
    randomise(other)
    layer.load_state_dict(other.state_dict())


def train(layer: PairwiseSelfAttention) -> None:
    layer.train()(FEATURES)
    layer.eval()


CHANGES: dict[str, Callable[[PairwiseSelfAttention], Any]] = {
    "optimizer": step,
    "state dict": load,
    "running mean": lambda layer: layer.mapping[0].running_mean.add_(1),
    "running variance": lambda layer: layer.mapping[3].running_var.mul_(2),
    "training": train,
    "last weight": lambda layer: layer.mapping[5].weight.detach().normal_(),
    "new linear layer": lambda layer: setattr(layer.mapping[5], "weight", nn.Parameter(torch.randn(4, 8, 1, 1))),
    "position": lambda layer: layer.position.transform.weight.detach().mul_(-3),
    # as moving averages of parameters do it, which no version tells
    "data": lambda layer: layer.mapping[2].weight.data.mul_(-3) is layer.eval(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_follows_its_parameters(change: Callable[[PairwiseSelfAttention], Any]) -> None:
    layer = make()
    before = check(layer)
    change(layer)
    assert not torch.allclose(check(layer), before, rtol=1e-3)
    check(layer.double(), FEATURES.double(), 1e-10)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_are_independent(duplicate: Callable[[nn.Module], nn.Module]) -> None:
    layer = make()
    before = check(layer)
    other = duplicate(layer)
    assert torch.equal(check(other), before)
    other.mapping[0].running_mean.add_(1)
    assert not torch.allclose(check(other), before)
    assert torch.equal(check(layer), before)


class Twice(nn.ReLU):
    def forward(self, features: Tensor) -> Tensor:
        return 2 * super().forward(features)


def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return 2 * output


def patched(layer: PairwiseSelfAttention) -> None:
    layer.mapping[5].forward = lambda features: features.mean(1, keepdim=True).expand(-1, 4, -1, -1)


def parametrised(layer: PairwiseSelfAttention) -> None:
    torch.nn.utils.parametrizations.weight_norm(layer.mapping[2])


REFUSED: dict[str, tuple[Callable[[PairwiseSelfAttention], Any], str]] = {
    "hook": (lambda layer: layer.mapping[2].register_forward_hook(hook), "mapping.2 has a forward hook"),
    "hook on all": (lambda layer: layer.mapping.register_forward_hook(hook), "the mapping has a forward hook"),
    "position hook": (
        lambda layer: layer.position.register_forward_hook(hook),
        "the position encoding has a forward hook",
    ),
    "activation": (lambda layer: setattr(layer.mapping, "1", Twice()), "mapping.1 is a Twice"),
    "norm": (lambda layer: setattr(layer.mapping, "0", nn.InstanceNorm2d(10)), "mapping.0 is a InstanceNorm2d"),
    "patched": (patched, "mapping.5 has a forward hook or an overridden forward"),
    "parametrised": (parametrised, "mapping.2 is a ParametrizedConv2d"),
    "grouped": (lambda layer: setattr(layer.mapping, "5", nn.Conv2d(8, 4, 1, groups=2)), "mapping.5 is not a 1x1 conv"),
    "wider": (lambda layer: setattr(layer.mapping, "5", nn.Conv2d(8, 4, 3, padding=1)), "mapping.5 is not a 1x1 conv"),
    "position": (
        lambda layer: setattr(layer.position, "transform", nn.Conv2d(2, 2, 3, padding=1)),
        "not a 1x1 convolution",
    ),
    "longer": (
        lambda layer: layer.mapping.append(nn.ReLU()),
        "the mapping does not consist of one or two or three linear layers",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_calls_its_modules_where_they_are_not_the_usual_ones(
    change: Callable[[PairwiseSelfAttention], Any], message: str
) -> None:
    layer = make()
    change(layer)
    with torch.no_grad():
        found = refusal(layer)
        assert found is not None
        assert message in found
        output = copy.deepcopy(layer)(FEATURES)
        with fused(False):
            assert torch.equal(output, copy.deepcopy(layer)(FEATURES))


def test_the_switches_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    name = "sa_layers.fused.evaluation.block.pairwise_attention_fused"
    monkeypatch.setattr(name, lambda *args, **kwargs: calls.append(0) or operator(*args, **kwargs))
    layer = make()
    layer(FEATURES).sum().backward()
    with torch.no_grad(), fused(False):
        layer(FEATURES)
    with torch.no_grad(), backend("torch"):
        layer(FEATURES)
    torch.vmap(layer, randomness="error")(FEATURES.unsqueeze(0).detach())
    assert not calls
    with torch.no_grad():
        layer(FEATURES)
    layer.requires_grad_(False)(FEATURES)
    with torch.inference_mode():
        layer(FEATURES)
    assert len(calls) == 3
    layer(FEATURES.clone().requires_grad_()).sum().backward()
    assert len(calls) == 3


def test_compiles_and_exports() -> None:
    layer = make()
    with torch.no_grad():
        expected = layer(FEATURES)
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")(FEATURES)
        torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=1e-4)
        program = torch.export.export(layer, (FEATURES,))
    assert not any("sa_layers" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(FEATURES), expected, rtol=1e-4, atol=1e-4)


def test_in_a_block() -> None:
    torch.manual_seed(0)
    block = SelfAttentionBlock(128, 7)
    randomise(block)
    for layout in (torch.contiguous_format, torch.channels_last):
        check(block.eval(), torch.randn(2, 128, 8, 9).to(memory_format=layout))
