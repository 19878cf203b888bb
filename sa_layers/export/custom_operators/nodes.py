"""The nodes of the domain ``sa_layers``, whose maps are channels last. csrc/runtimes/operators.h describes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...fused.evaluation.block import FusedPairwiseAttention, FusedPatchwiseAttention
from ...fused.evaluation.parameters import Folded, linear_layers
from ...ops import AffineReLU
from ...ops.footprint import output_size

DOMAIN = "sa_layers"
VERSION = 1


class Projection(NamedTuple):
    """A linear layer of every pixel, after a frozen norm and its ReLU if there is one."""

    weight: Tensor
    """(D, C)."""
    bias: Tensor
    """(D,)."""
    norm: AffineReLU | None

    @classmethod
    def of(cls, layers: Sequence[nn.Module], norm: AffineReLU | None = None) -> Projection:
        """1x1 convolutions of the same input, one after another in the channels of the output."""
        weights, biases = linear_layers(layers)
        pairs = zip(weights, biases, strict=True)
        kept = [weight.new_zeros(len(weight)) if bias is None else bias for weight, bias in pairs]
        return cls(torch.cat([weight.flatten(1) for weight in weights]).detach(), torch.cat(kept).detach(), norm)

    def __call__(self, features: Tensor, residual: Tensor | None = None) -> Tensor:
        """(N, H, W, C) -> (N, H, W, D), to which the residual is added."""
        added = [] if residual is None else [residual]
        channels = len(self.weight)
        attributes = {"channels": channels, "normed": int(self.norm is not None), "residual": len(added)}
        inputs = [self.weight, self.bias, *(self.norm or ()), *added]
        return _node("Projection", features, inputs, attributes, (*features.shape[:3], channels))


class Attention(NamedTuple):
    """An attention, and the norm and ReLU after it if there is one."""

    name: str
    inputs: list[Tensor]
    attributes: dict[str, Any]

    @classmethod
    def of(cls, layer: Any, attend: Any, folded: Folded, norm: AffineReLU | None = None) -> Attention:
        """An attention layer with its plan, a :class:`FusedPairwiseAttention` or :class:`FusedPatchwiseAttention`."""
        widths = [transform.out_channels for transform in layer.transforms()]
        value = sum(widths[:-1])  # query, key and value, or those that are not shared, follow each other
        kernel_size, stride, dilation, padding_mode = attend.footprint
        attributes: dict[str, Any] = {
            "relation": attend.relation,
            "padding_mode": padding_mode,
            "kernel_size": list(kernel_size),
            "stride": list(stride),
            "dilation": list(dilation),
            "channels": [layer.relation_channels, layer.out_channels],
            "starts": [0, widths[0] if len(widths) == 3 else 0, value],
            "normed": int(norm is not None),
        }
        inputs: list[Tensor] = []
        if isinstance(attend, FusedPairwiseAttention):
            attributes |= {"positioned": int(attend.position is not None), "position_size": [0, 0]}
            if attend.position is not None:
                position = folded.positions[attend.position]
                inputs += [position.query, position.key]
                attributes["position_size"] = list(position.size or (0, 0))
        inputs += norm or ()
        for parameters in zip(*attend.mapping.operands(folded), strict=True):
            inputs += (each.detach().flatten(1) if each.ndim > 1 else each.detach() for each in parameters)
        pairwise = isinstance(attend, FusedPairwiseAttention)
        assert pairwise or isinstance(attend, FusedPatchwiseAttention)
        return cls("PairwiseAttention" if pairwise else "PatchwiseAttention", inputs, attributes)

    def __call__(self, maps: Tensor) -> Tensor:
        """Query, key and value, (N, H, W, D) -> (N, Ho, Wo, C)."""
        height, width = output_size(maps.shape[1], maps.shape[2], self.attributes["stride"])
        shape = (maps.shape[0], height, width, self.attributes["channels"][1])
        return _node(self.name, maps, self.inputs, self.attributes, shape)


def _node(
    name: str, features: Tensor, inputs: Sequence[Tensor], attributes: dict[str, Any], shape: Sequence[Any]
) -> Tensor:
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{name}", [features, *inputs], attributes, dtype=features.dtype, shape=shape, version=VERSION
    )
