"""Pairwise attention, whole: relation, position, mapping, softmax and aggregation in one operator, for inference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .backend import devices_of
from .checks import autocast, check_alike, check_map, check_shape, check_tensors
from .coordinates import coordinates
from .footprint import Footprint, IntOrPair, output_size
from .fusion import why_not_fused
from .native import native_gradient
from .pairwise_relation import PAIRWISE_RELATIONS, geometry_of, pairwise_relation, relation_width
from .softmax_aggregation import softmax_aggregation

MAPPING_LAYERS = 3  # at most
POSITION_CHANNELS = 4  # at most
# Of the CUDA kernel, as in csrc/cuda/pairwise_attention.h: what its shared memory and its registers have room for.
CUDA_WIDEST_LAYER = 384
CUDA_VALUE_CHANNELS = 4096


class Mapping(NamedTuple):
    """The mapping γ of :func:`pairwise_attention`, its norms folded.

    Scale, shift and ReLU, then linear layers with a ReLU between. All tensors are float32, or float64 where the
    features are.

    Args:
        scale: (D,), times which the features of a pair are taken.
        shift: (D,), added to them before the first ReLU.
        weights: One to three of shape (out, in): from D, through any widths, to Cw.
        biases: As many, of shape (out,).
    """

    scale: Tensor
    shift: Tensor
    weights: Sequence[Tensor]
    biases: Sequence[Tensor]


class PairPosition(NamedTuple):
    r"""The position of a pair as affine maps of coordinates :math:`(x, y, 1)`, from -1 to 1 across the map.

    .. math:: Q (x_i, y_i, 1)^\top + K (x_j, y_j, 1)^\top

    With :math:`K = -Q` it is relative, with rows of zeros in each a concatenation. The second term is 0 for a
    neighbour beyond the border under 'zeros' padding; a reflected neighbour has the coordinates of the pixel shown.

    Args:
        query: Q, (P, 3) with P up to 4; float32, or float64 where the features are.
        key: K, the shape and dtype of ``query``.
        size: Height and width of the map across which coordinates run from -1 to 1, in pixels. Defaults to None, the
            map at hand.
    """

    query: Tensor
    key: Tensor
    size: tuple[int, int] | None = None


class Epilogue(NamedTuple):
    """What follows the aggregation: ``relu(scale * y + shift)`` for every channel, as a frozen norm and its ReLU.

    Args:
        scale: (C,); float32, or float64 where the features are.
        shift: As ``scale``.
    """

    scale: Tensor
    shift: Tensor


def pairwise_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mapping: Mapping,
    kernel_size: IntOrPair,
    relation: str = "subtraction",
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
    padding_mode: str = "reflect",
    *,
    position: PairPosition | None = None,
    epilogue: Epilogue | None = None,
) -> Tensor:
    r"""Averages the pixels of every footprint, weighted by what the mapping makes of their relation to the centre.

    .. math:: y_i = \sum_{j \in R(i)} \operatorname{softmax}_j(\gamma([\delta(\varphi_i, \psi_j), p_{ij}])) \odot x_j

    Where :func:`sa_layers.ops.why_not_fused` finds no obstacle, one kernel computes it, whose memory is that of its
    operands and output; otherwise the unfused operators do, which have derivatives. The kernel reads channels-last maps
    as they are, slices of channels too, and copies others. On CUDA, mappings of more than 384 channels are left to the
    unfused operators, and tensor cores multiply: features, weights and activations of the mapping are rounded to the
    dtype of half-precision maps, and to TF32 for float32 maps where ``torch.backends.cuda.matmul.allow_tf32`` is on.
    At SAN's widths in half precision a NaN or an infinity in a map may there reach pixels up to eight columns away.

    Args:
        query: φ, (N, Cr, H, W); float64, float32, float16 or bfloat16, of any strides.
        key: ψ, the shape, dtype and device of ``query``.
        value: x, (N, C, H, W); dtype and device of ``query``.
        mapping: γ, with ``D`` the channels of the relation and then those of the position; Cw divides C, and channel c
            uses the weight c mod Cw.
        kernel_size: Taps of the footprint, odd; an integer or (height, width).
        relation: δ, one of those of :func:`sa_layers.ops.pairwise_relation`. Defaults to 'subtraction'.
        stride: Pixels between footprints. Defaults to 1.
        dilation: Pixels between taps. Defaults to 1.
        padding_mode: 'reflect' (default) or 'zeros' beyond the border.
        position: p, or None (default) for none.
        epilogue: A scale, a shift and a ReLU for the output, or None (default).

    Returns:
        (N, C, Ho, Wo) with ``Ho = ceil(H / stride)``; channels-last in memory when fused.

    Raises:
        TypeError: A dtype is not allowed.
        ValueError: A shape, size, mode or relation does not fit; the message names it.

    Example:
        >>> features = torch.arange(9.0).view(1, 1, 3, 3)
        >>> constant = Mapping(torch.ones(1), torch.zeros(1), [torch.zeros(1, 1)], [torch.zeros(1)])
        >>> output = pairwise_attention(features, features, features, constant, kernel_size=3)
        >>> round(output[0, 0, 1, 1].item(), 4)
        4.0
    """
    footprint = Footprint.parse(kernel_size, stride, dilation, padding_mode)
    check_tensors(query=query, key=key, value=value)
    query, key, value = autocast(query, key, value)
    _check(query, key, value, mapping, relation, position, epilogue)
    parameters = [
        mapping.scale,
        mapping.shift,
        *mapping.weights,
        *mapping.biases,
        *(position or ())[:2],
        *(epilogue or ()),
    ]
    widths = [mapping.scale.shape[0], *(bias.shape[0] for bias in mapping.biases)]
    obstacle = why_no_kernel(query.device, widths, value.shape[1])
    if obstacle is None and why_not_fused([query, key, value, *parameters]) is None:
        return fused_pairwise_attention(query, key, value, mapping, footprint, relation, position, epilogue)
    return pairwise_attention_unfused(query, key, value, mapping, footprint, relation, position, epilogue)


def pairwise_attention_unfused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mapping: Mapping,
    footprint: Footprint,
    relation: str = "subtraction",
    position: PairPosition | None = None,
    epilogue: Epilogue | None = None,
) -> Tensor:
    """The same by the operators that it is made of, and so with derivatives."""
    kernel_size, stride, dilation, padding_mode = footprint
    geometry = (stride, dilation, padding_mode)
    features = pairwise_relation(query, key, kernel_size, relation, *geometry).to(mapping.shift.dtype)
    if position is not None:
        grid = coordinates(query.to(mapping.shift.dtype), position.size)
        grid = torch.cat([grid, torch.ones_like(grid[:, :1])], dim=1)
        here, there = (torch.einsum("pc,nchw->nphw", matrix, grid) for matrix in position[:2])
        encoded = pairwise_relation(here, there, kernel_size, "summation", *geometry)
        features = torch.cat([features, encoded.expand(len(features), -1, -1, -1)], dim=1)
    features = features * mapping.scale.view(-1, 1, 1) + mapping.shift.view(-1, 1, 1)
    for weight, bias in zip(mapping.weights, mapping.biases, strict=True):
        features = torch.einsum("oc,nckp->nokp", weight, features.relu()) + bias.view(-1, 1, 1)
    output = softmax_aggregation(value, features.to(value.dtype), kernel_size, *geometry)
    if epilogue is not None:
        output = (output * epilogue.scale.view(-1, 1, 1) + epilogue.shift.view(-1, 1, 1)).relu().to(value.dtype)
    return output


def fused_pairwise_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mapping: Mapping,
    footprint: Footprint,
    relation: str,
    position: PairPosition | None,
    epilogue: Epilogue | None,
) -> Tensor:
    """The kernel alone, for operands that fit and that nothing keeps from it; it checks what it reads."""
    return native_attention(
        query,
        key,
        value,
        mapping.scale,
        mapping.shift,
        list(mapping.weights),
        list(mapping.biases),
        *((None, None) if position is None else position[:2]),
        [] if position is None or position.size is None else list(position.size),
        *(epilogue or (None, None)),
        *geometry_of(footprint, relation),
        query.is_cuda and tf32_is_allowed(),
    )


def why_no_kernel(device: torch.device, widths: Iterable[int], value_channels: int) -> str | None:
    """One sentence on what leaves such a problem on ``device`` without a native kernel, or None.

    Args:
        device: Where the features are.
        widths: Channels of the pairs' features, and of what each layer of the mapping makes of them.
        value_channels: C.

    Example:
        >>> why_no_kernel(torch.device("meta"), [6, 4, 2], 16)
        'the fused operator of pairwise attention was not built for meta'
    """
    if device.type not in _native_devices:
        return f"the fused operator of pairwise attention was not built for {device.type}"
    if device.type == "cuda" and (widest := max(widths)) > CUDA_WIDEST_LAYER:
        return f"the CUDA kernel maps at most {CUDA_WIDEST_LAYER} channels, and a layer here has {widest}"
    if device.type == "cuda" and value_channels > CUDA_VALUE_CHANNELS:
        return f"the CUDA kernel adds up at most {CUDA_VALUE_CHANNELS} channels, and the value has {value_channels}"
    return None


def _check(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mapping: Mapping,
    relation: str,
    position: PairPosition | None,
    epilogue: Epilogue | None,
) -> None:
    """Refuses operands that do not fit."""
    if relation not in PAIRWISE_RELATIONS:
        raise ValueError(f"relation must be one of {', '.join(PAIRWISE_RELATIONS)}, got {relation!r}")
    check_map(query, "query")
    check_map(value, "value")
    given = f"query {tuple(query.shape)}"
    check_shape(key, "key", tuple(query.shape), given)
    check_shape(value, "value", (query.shape[0], "C", *query.shape[2:]), given)
    check_alike(query, "query", key, "key")
    check_alike(query, "query", value, "value")
    parameters = [("mapping.scale", mapping.scale), ("mapping.shift", mapping.shift)]
    width = relation_width(relation, query.shape[1])
    if position is not None:
        check_shape(position.query, "position.query", ("P", 3), "coordinates (x, y, 1)")
        check_shape(position.key, "position.key", tuple(position.query.shape), "position.query")
        if position.size is not None and min(position.size) < 2:
            raise ValueError(f"position.size must be at least 2, got {position.size}")
        if len(position.query) > POSITION_CHANNELS:
            raise ValueError(f"position must have at most {POSITION_CHANNELS} rows, got {len(position.query)}")
        parameters += [("position.query", position.query), ("position.key", position.key)]
        width += len(position.query)
    given = f"relation {relation!r} of {given}"
    check_shape(mapping.scale, "mapping.scale", (width,), given)
    check_shape(mapping.shift, "mapping.shift", (width,), given)
    if not 1 <= len(mapping.weights) == len(mapping.biases) <= MAPPING_LAYERS:
        raise ValueError(
            f"mapping must have one to {MAPPING_LAYERS} weights and as many biases, "
            f"got {len(mapping.weights)} and {len(mapping.biases)}"
        )
    for index, (weight, bias) in enumerate(zip(mapping.weights, mapping.biases, strict=True)):
        check_shape(weight, f"mapping.weights[{index}]", ("out", width), given)
        width = weight.shape[0]
        check_shape(bias, f"mapping.biases[{index}]", (width,), "its weight")
        parameters += [(f"mapping.weights[{index}]", weight), (f"mapping.biases[{index}]", bias)]
    if width < 1 or value.shape[1] % width:
        raise ValueError(
            f"the outputs of mapping must have a number that divides the channels of value ({value.shape[1]}), "
            f"got {width}"
        )
    if epilogue is not None:
        for name, tensor in zip(("epilogue.scale", "epilogue.shift"), epilogue, strict=True):
            check_shape(tensor, name, (value.shape[1],), f"value {tuple(value.shape)}")
            parameters.append((name, tensor))
    expected = torch.promote_types(query.dtype, torch.float32)
    for name, tensor in parameters:
        if tensor.dtype != expected:
            raise TypeError(f"{name} must be {expected} beside features of {query.dtype}, got {tensor.dtype}")


@torch.compiler.assume_constant_result  # a graph is guarded by it, and compiled anew when it changes
def tf32_is_allowed() -> bool:
    """Whether torch may round the factors of float32 matrix products on CUDA, as any of its switches has it."""
    return torch.backends.cuda.matmul.fp32_precision == "tf32"  # allow_tf32 cannot be read once this was set


def _fake_attention(query: Tensor, key: Tensor, value: Tensor, *arguments: Any) -> Tensor:
    stride = arguments[-4]
    height, width = output_size(value.shape[2], value.shape[3], stride)
    return value.new_empty(value.shape[0], height, width, value.shape[1]).permute(0, 3, 1, 2)


native_attention = native_gradient("pairwise_attention", _fake_attention)  # it has no derivative either
_native_devices = devices_of("pairwise_attention")
