"""The attentions of a model as operators while it is exported."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...fused.eligibility import why_not_linear
from ...fused.originals import overridden, why_not_original
from ...layers import PairwiseSelfAttention, PatchwiseSelfAttention, SelfAttentionBlock
from ...layers.self_attention import CALLED_METHODS
from ...ops import Footprint
from ..substitution import Forward, Substitution
from . import operators
from .folding import Affine, Layer, affine_of, by_weight
from .geometry import Band
from .pairwise import FoldedPairwise, fold_pairwise
from .patchwise import FoldedPatchwise, fold_patchwise

Attention = PairwiseSelfAttention | PatchwiseSelfAttention
LAYERS = (1, 2, 3)  # numbers of linear layers of a mapping


def banded(model: nn.Module) -> AbstractContextManager[None]:
    """Inside the block, let torch.export record the attentions of a model that have band graphs as operators.

    Norms are folded with the values that they have when the block is entered. No other thread may call the model
    meanwhile, since the operators compute nothing.

    Example:
        >>> layer = PairwiseSelfAttention(8, 8, 3).eval()
        >>> with banded(layer), torch.no_grad():
        ...     program = torch.export.export(layer, (torch.zeros(1, 8, 6, 6),))
        >>> print(program.graph.find_nodes(op="call_function", target=operators.pairwise_attention)[0].name)
        pairwise_attention
    """
    return BAND_GRAPHS.applied(model)


def why_not_banded(model: nn.Module) -> dict[str, str]:
    """The attention layers of a model that have no band graph, by name, each with the reason in a sentence.

    Example:
        >>> why_not_banded(nn.Sequential(PairwiseSelfAttention(8, 8, 3)))
        {'0': 'mapping.0 is in training mode'}
    """
    return BAND_GRAPHS.obstacles(model)


def why_not_block(block: SelfAttentionBlock) -> str | None:
    """One sentence on why the norms of a block cannot be folded into its attention, or None."""
    return block.why_not_eligible() or _why_not_mapping(block.attention) or _why_not_dtype(block.attention)


def why_not_layer(layer: Attention) -> str | None:
    """One sentence on why an attention layer has no band graph, or None.

    A band graph needs a mapping of linear layers, batch norms with running statistics and ReLUs, none of the methods
    overridden, no hooks inside the layer, and float32. It exists for every relation, position, padding mode, stride and
    dilation.

    Example:
        >>> why_not_layer(PairwiseSelfAttention(8, 8, 3))
        'mapping.0 is in training mode'
    """
    base = PairwiseSelfAttention if isinstance(layer, PairwiseSelfAttention) else PatchwiseSelfAttention
    if method := overridden(layer, CALLED_METHODS, base):
        return f"{type(layer).__name__} overrides {method}"
    for transform in layer.transforms():
        if obstacle := why_not_linear(transform):
            return f"a linear layer {obstacle}"
    return _why_not_mapping(layer) or _why_not_dtype(layer)


def _why_not_mapping(layer: Any) -> str | None:
    return why_not_original() or layer.why_not_foldable(LAYERS)


def _why_not_dtype(layer: Any) -> str | None:
    dtype = layer.query.weight.dtype
    return None if dtype == torch.float32 else f"its parameters are {dtype}"


def _block(block: SelfAttentionBlock) -> Forward:
    """The block as a function of its input."""
    attention = _Attention(block.attention, affine_of(block.norm2, block.expansion.in_channels))
    expansion = Layer.of(block.expansion).reading(by_weight(attention.folded.channels))
    weight, bias = _pointwise(expansion, block.expansion.weight)

    def forward(features: Tensor) -> Tensor:
        return features + F.conv2d(attention.forward(F.relu(block.norm1(features))), weight, bias)

    return forward


class _Attention:
    """An attention layer, and the norm and ReLU that follow it in a block, as a function of its input."""

    def __init__(self, layer: Any, output: Affine | None = None) -> None:
        self.footprint: Footprint = layer.footprint
        self.in_block = output is not None
        self.band = Band.of(self.footprint)
        parameter = layer.query.weight
        folded: FoldedPairwise | FoldedPatchwise
        if isinstance(layer, PairwiseSelfAttention):
            folded = fold_pairwise(layer, output)
            self.position_size = None if layer.position is None else layer.position.size
        else:
            folded = fold_patchwise(layer, output)
        self.weight, self.bias = _pointwise(folded.transform, parameter)
        self.folded = type(folded)(*(_like(parameter, item) for item in folded))

    def forward(self, features: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, C, Ho, Wo)."""
        maps = F.conv2d(features, self.weight, self.bias)
        height, width = maps.shape[-2:]
        zeros, sizes = self.footprint.padding_mode == "zeros", operators.sizes_of(self.band)
        tables = [*operators.tables(maps, height, width, sizes, zeros)]
        folded = self.folded
        outside = [folded.outside] if zeros else []
        options = (folded.relation, sizes, folded.channels, self.in_block)
        if isinstance(folded, FoldedPatchwise):
            return operators.patchwise_attention(
                maps,
                outside,
                tables,
                folded.scale,
                folded.shift,
                folded.weights,
                folded.biases,
                folded.output_shift,
                *options,
            )
        if folded.position:
            tables.append(operators.coordinates(maps, height, width, self.position_size or (), zeros))
        return operators.pairwise_attention(
            maps, outside, tables, folded.position, folded.shift, folded.weights, folded.biases, *options
        )


def _pointwise(layer: Layer, parameter: Tensor) -> list[Tensor]:
    """Weight and bias of a 1x1 convolution, in the dtype and on the device of a parameter."""
    return _like(parameter, [layer.weight[..., None, None], layer.bias])


def _like(parameter: Tensor, item: Any) -> Any:
    """An item of folded operands, with tensors in the dtype and on the device of a parameter."""
    if isinstance(item, Tensor):
        return item.to(parameter).contiguous().detach()
    return [_like(parameter, part) for part in item] if isinstance(item, list) else item


BAND_GRAPHS = Substitution(why_not_block, why_not_layer, _block, lambda layer: _Attention(layer).forward)
