"""Layers of a user under their own name: in blocks, networks and backbones; against a definition of their equation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from sa_layers.layers import (
    ATTENTIONS,
    PairwiseSelfAttention,
    PatchwiseSelfAttention,
    SelfAttentionBlock,
    register_attention,
)
from sa_layers.models import SelfAttentionClassifier, SelfAttentionNetwork
from sa_layers.ops import extension, pairwise_relation
from sa_layers.reference import softmax_aggregation

SMALL = {"depth": (1, 1, 1, 1, 1), "widths": (32, 32, 32, 32, 32), "kernel_sizes": (3, 3, 3, 3, 3)}


class Distance(PairwiseSelfAttention):
    """Pairwise attention from squared distances, which are one channel."""

    relations = ("distance",)

    def relate(self, query: Tensor, key: Tensor) -> Tensor:
        kernel_size, stride, dilation, padding_mode = self.footprint
        difference = pairwise_relation(query, key, kernel_size, "subtraction", stride, dilation, padding_mode)
        return difference.square().sum(1, keepdim=True)

    def mapping_widths(self) -> tuple[int, int, int]:
        position = 0 if self.position is None else self.position.channels
        return 1 + position, self.relation_channels, self.weight_channels


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """The name exists during a test."""
    register_attention("distance")(Distance)
    yield
    for name in ATTENTIONS.keys() - {"pairwise", "patchwise"}:
        del ATTENTIONS[name]


def test_against_a_definition() -> None:
    """The whole layer, in float64, at a border that half of the taps are beyond."""
    torch.manual_seed(0)
    layer = Distance(8, 8, kernel_size=5, share=4, position=None).double().eval()
    features = torch.randn(2, 8, 4, 5, dtype=torch.float64)
    query, key, value = layer.transform(features)
    padded = pad(key, [2] * 4, mode="reflect")
    windows = [padded[:, :, row : row + 4, column : column + 5] for row in range(5) for column in range(5)]
    distances = torch.stack([(query - window).square().sum(1).flatten(1) for window in windows], 1)[:, None]
    with torch.no_grad():
        logits = layer.mapping(distances)
        expected = softmax_aggregation(value.detach().numpy(), logits.numpy(), 5)
        torch.testing.assert_close(layer(features), torch.from_numpy(expected))


@pytest.mark.parametrize("make", [SelfAttentionNetwork, SelfAttentionClassifier])
def test_networks(make: type[nn.Module]) -> None:
    """It is built with the options of the network, trains, and says why it is not fused."""
    model = make(attention="distance", share=4, **SMALL)
    layers = [module for module in model.modules() if isinstance(module, Distance)]
    assert len(layers) == 5
    assert all(layer.share == 4 for layer in layers)
    image = torch.randn(2, 3, 32, 32)
    outputs = model(image)
    sum(output.square().mean() for output in outputs).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    network = getattr(model, "network", model)
    assert extension.why_not() or "the attention is a Distance" in network.why_not_fused(image)
    again = make(attention="distance", share=4, **SMALL)
    again.load_state_dict(model.state_dict())


def test_backbone() -> None:
    """A config names it like the package's own attentions."""
    pytest.importorskip("mmcv")
    from mmengine.registry import MODELS

    backbone = MODELS.build({"type": "sa_layers.SAN", "attention": "distance", **SMALL})
    assert type(backbone.stages[0].blocks[0].attention) is Distance


def test_errors() -> None:
    for name in ("pairwise", "patchwise", "two words", 3):
        with pytest.raises(ValueError, match="name must be an identifier other than pairwise, patchwise, got"):
            register_attention(name)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="attention 'linear' must be a subclass of SelfAttention"):
        register_attention("linear")(nn.Linear)  # type: ignore[type-var]
    with pytest.raises(TypeError, match=r"SelfAttentionBlock has no argument 'window'"):
        SelfAttentionBlock(32, 3, "distance", window=3)
    with pytest.raises(ValueError, match="attention must be one of pairwise, patchwise, distance, got 'distant'"):
        SelfAttentionBlock(32, 3, "distant")


def test_registered_again() -> None:
    """As when a cell of a notebook is run again."""

    @register_attention("distance")
    class Other(PatchwiseSelfAttention):
        pass

    assert type(SelfAttentionBlock(32, 3, "distance").attention) is Other
