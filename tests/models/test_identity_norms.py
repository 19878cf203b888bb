"""``nn.Identity`` in the place of norms, as tools leave it that multiply norms into convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from sa_layers.layers import SelfAttentionBlock
from sa_layers.models import SelfAttentionNetwork
from sa_layers.ops import extension, fused

pytestmark = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
SMALL: dict[str, Any] = {"depth": (1, 1, 2, 1, 1), "widths": (32, 32, 64, 64, 64), "kernel_sizes": (3,) * 5}
ATTENTIONS = pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
# In each case, the names of the norms that are replaced end in one of these.
NORMS: dict[str, tuple[str, ...]] = {
    "stem": ("stem.1",),
    "first norm of a mapping": ("mapping.0",),
    "second norm of a mapping": ("mapping.3",),
    "first norm of a block": ("norm1",),
    "second norm of a block": ("norm2",),
    "norm of a stage": (".norm",),
    "all": ("",),
}


def network(attention: str = "pairwise", norms: tuple[str, ...] = ("",), **options: Any) -> SelfAttentionNetwork:
    """A network in evaluation with some identities, and other norms that are not the identity."""
    torch.manual_seed(0)
    model = SelfAttentionNetwork(attention=attention, **SMALL | options).eval()
    for name, norm in list(model.named_modules()):
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.running_mean, 0, 0.2)  # type: ignore[arg-type]
            if name.endswith(norms):
                model.set_submodule(name, nn.Identity())
    return model


def check(model: nn.Module, features: torch.Tensor, tolerance: float = 1e-4) -> None:
    """The fused path is taken, gives what the modules give one by one, and leaves the input alone."""
    before = features.clone()
    with torch.no_grad():
        assert model.why_not_fused(features) is None  # type: ignore[operator]
        results = model(features)
        with fused(False):
            expected = model(features)
    assert torch.equal(features, before)
    for result, wanted in zip(results, expected, strict=True):
        assert result.dtype == wanted.dtype
        assert (result - wanted).abs().max() <= tolerance * wanted.abs().max()


@ATTENTIONS
@pytest.mark.parametrize("norms", NORMS.values(), ids=NORMS)
def test_networks(attention: str, norms: tuple[str, ...]) -> None:
    check(network(attention, norms, out_indices=range(5)), torch.randn(2, 3, 45, 38))


@ATTENTIONS
def test_convolutions_with_biases(attention: str) -> None:
    """A norm that was multiplied into a convolution leaves its shift as a bias."""
    model = network(attention, ("stem.1", "mapping.3"))
    model.stem[0] = nn.Conv2d(3, 32, 1)
    for block in [block for stage in model.stages for block in stage.blocks]:
        first = block.attention.mapping[2]
        block.attention.mapping[2] = nn.Conv2d(first.in_channels, first.out_channels, 1)
    check(model, torch.randn(2, 3, 45, 38))


@ATTENTIONS
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_blocks(attention: str, memory_format: torch.memory_format) -> None:
    """In-place activations behind an identity do not overwrite the input of the block."""
    torch.manual_seed(0)
    block = SelfAttentionBlock(64, 3, attention, norm_layer=nn.Identity)
    check(block, torch.randn(2, 64, 9, 8).to(memory_format=memory_format))


def test_conversions() -> None:
    """The scale of an identity has the dtype of the parameters, also after a conversion."""
    model, image = network(), torch.randn(1, 3, 40, 40)
    for dtype, tolerance in {torch.float32: 1e-4, torch.float64: 1e-12, torch.bfloat16: 0.1}.items():
        check(model.to(dtype), image.to(dtype), tolerance)


@ATTENTIONS
def test_compiled(attention: str) -> None:
    torch.compiler.reset()
    model, image = network(attention), torch.randn(1, 3, 40, 33)
    with torch.no_grad():
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(image), model(image), rtol=1e-4, atol=1e-5)


def add_hook(identity: nn.Module, seen: list[str]) -> None:
    identity.register_forward_hook(lambda *_: seen.append("hook"))


def replace_forward(identity: nn.Module, seen: list[str]) -> None:
    identity.forward = lambda features: seen.append("forward") or features  # type: ignore[method-assign]


class Halving(nn.Identity):
    """A subclass may compute anything."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features / 2


@pytest.mark.parametrize("change", [add_hook, replace_forward])
@pytest.mark.parametrize("name", ["stem.1", "stages.1.norm", "stages.2.blocks.1.norm2"])
def test_watched_identities_are_called(name: str, change: Callable[[nn.Module, list[str]], None]) -> None:
    model, image, seen = network(), torch.randn(1, 3, 40, 40), list[str]()
    change(model.get_submodule(name), seen)
    with torch.no_grad():
        assert "forward hook" in str(model.why_not_fused(image))
        model(image)
    assert len(seen) == 1


def test_subclasses_are_called() -> None:
    model, image = network(), torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        before = model(image)[0]
        model.stages[4].norm = Halving()
        assert "a Halving is a Halving" in str(model.why_not_fused(image))
        torch.testing.assert_close(model(image)[0], before / 2)
