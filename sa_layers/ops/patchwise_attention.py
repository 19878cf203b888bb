"""Patchwise attention in one operator, for inference: relation, mapping with frozen norms, aggregation."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .aggregation import aggregation_in_torch
from .backend import devices_of
from .checks import autocast, check_alike, check_map, check_shape, check_tensors
from .footprint import Footprint, IntOrPair, output_size
from .fusion import why_not_fused
from .native import native_gradient
from .pairwise_attention import Epilogue, tf32_is_allowed
from .pairwise_relation import geometry_of
from .patchwise_relation import PATCHWISE_RELATIONS, patchwise_relation

# Of the CUDA kernel, as in csrc/cuda/patchwise_attention.h: what its shared memory and its registers have room for.
CUDA_WEIGHTS = 512
CUDA_VALUE_CHANNELS = 3072
CUDA_TAPS = 4095


class PatchwiseMapping(NamedTuple):
    """A mapping γ of two linear layers whose norms are frozen, hence affine.

    All are float32, or float64 where the features are. (D, E) are (1 + taps, R) for the relation 'concatenation', the
    query before the taps of the footprint. They are (taps, 1) for 'star' and (taps * taps, 1) for 'clique', pair by
    pair as in :func:`patchwise_relation`.

    Args:
        scale: s of the first norm, (D, E).
        shift: t of the first norm, (D, E).
        hidden_weight: W_1, the first linear layer with the second norm's scale, (D, E, Cw).
        hidden_bias: b_1, the second norm's shift, (Cw,).
        weight: W_2, from hidden channels to the weights of each tap, (Cw, taps, Cw).
        bias: b_2, (taps, Cw).
    """

    scale: Tensor
    shift: Tensor
    hidden_weight: Tensor
    hidden_bias: Tensor
    weight: Tensor
    bias: Tensor


def patchwise_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mapping: PatchwiseMapping,
    kernel_size: IntOrPair,
    relation: str = "concatenation",
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
    padding_mode: str = "reflect",
    *,
    epilogue: Epilogue | None = None,
) -> Tensor:
    r"""Attends to every footprint as a whole.

    .. math::
        h_i &= \operatorname{relu}(b_1 + W_1 \operatorname{relu}(s \odot \delta_{R(i)} + t)) \\
        y_i &= \sum_{j \in R(i)} (b_2 + W_2 h_i)_j \odot \beta_j

    Equations 4 and 5 of the paper with the mapping's norms frozen, hence affine: :math:`\delta` is the relation,
    :math:`s, t` the first norm, and the second is part of :math:`W_1, b_1`. Neither the relation nor the weights are
    ever written to memory as a whole. On CUDA, more than 512 weights of a tap are left to plain torch, and tensor cores
    multiply: activated features, :math:`W_1, h, W_2` are rounded to the dtype of half-precision maps, and to TF32 for
    float32 maps where ``torch.backends.cuda.matmul.allow_tf32`` is on. At SAN's widths in half precision a NaN or an
    infinity in a map may there reach pixels up to eight columns away.

    Args:
        query: φ, (N, R, H, W); float32, float16 or bfloat16, fastest as a channels-last map or a slice of its channels;
            or float64, on the CPU in plain torch.
        key: ψ, the shape, dtype and device of ``query``. Under 'zeros' padding what lies beyond the border is 0.
        value: β, (N, C, H, W), dtype and device of ``query``.
        mapping: s, t, W_1, b_1, W_2, b_2, with C divisible by Cw; on the device of ``query``.
        kernel_size: Taps of the footprint, odd; an integer or (height, width).
        relation: δ, 'concatenation' (default), 'star' or 'clique'; see :func:`patchwise_relation`.
        stride: Pixels between footprints. Defaults to 1.
        dilation: Pixels between taps. Defaults to 1.
        padding_mode: 'reflect' (default) or 'zeros' beyond the border.
        epilogue: A scale, a shift and a ReLU for the output, or None (default).

    Returns:
        (N, C, Ho, Wo) with ``Ho = ceil(H / stride)``, in channels-last memory. Channel c uses weight ``c % Cw``; half
        precision accumulates in float32. The plain torch form, which has derivatives, computes it where
        :func:`sa_layers.ops.why_not_fused` finds an obstacle.

    Raises:
        TypeError: A dtype is not allowed.
        ValueError: A shape, size or mode does not fit; the message names it.

    Example:
        >>> from sa_layers.ops import PatchwiseMapping
        >>> features = torch.ones(1, 4, 6, 6)
        >>> norm, hidden = (torch.ones(10, 4), torch.zeros(10, 4)), (torch.ones(10, 4, 2), torch.zeros(2))
        >>> mapping = PatchwiseMapping(*norm, *hidden, torch.zeros(2, 9, 2), torch.full((9, 2), 0.125))
        >>> patchwise_attention(features, features, features, mapping, kernel_size=3)[0, 0, 0, :3]
        tensor([1.1250, 1.1250, 1.1250])
    """
    footprint = Footprint.parse(kernel_size, stride, dilation, padding_mode)
    check_tensors(query=query, key=key, value=value)
    query, key, value = autocast(query, key, value)
    check_patchwise_attention(query, key, value, mapping, epilogue, footprint, relation)
    tensors = [query, key, value, *mapping, *(epilogue or ())]
    sizes = (mapping.hidden_bias.shape[0], footprint.taps, value.shape[1])
    if why_no_kernel(query.device, mapping.scale.dtype, *sizes) is None and why_not_fused(tensors) is None:
        return fused_patchwise_attention(query, key, value, mapping, footprint, relation, epilogue)
    return patchwise_attention_in_torch(query, key, value, mapping, epilogue, footprint, relation)


def fused_patchwise_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mapping: PatchwiseMapping,
    footprint: Footprint,
    relation: str,
    epilogue: Epilogue | None,
) -> Tensor:
    """The kernel alone, for operands that fit and that nothing keeps from it; it checks what it reads."""
    parameters = (*mapping, *(epilogue or (None, None)))
    allow_tf32 = query.is_cuda and tf32_is_allowed()
    return native_attention(query, key, value, *parameters, *geometry_of(footprint, relation), allow_tf32)


def why_no_kernel(device: torch.device, dtype: torch.dtype, weights: int, taps: int, value_channels: int) -> str | None:
    """One sentence on what leaves such a problem on ``device`` without a native kernel, or None.

    Args:
        device: Where the features are.
        dtype: Of the mapping.
        weights: Cw.
        taps: Of the footprint.
        value_channels: C.

    Example:
        >>> why_no_kernel(torch.device("meta"), torch.float32, 2, 9, 16)
        'the fused operator of patchwise attention was not built for meta'
    """
    if device.type not in _native_devices:
        return f"the fused operator of patchwise attention was not built for {device.type}"
    if device.type == "cpu":
        return "the fused operator of patchwise attention computes in float32" if dtype == torch.float64 else None
    if weights > CUDA_WEIGHTS:
        return f"the CUDA kernel makes at most {CUDA_WEIGHTS} weights of a tap, and here are {weights}"
    if taps > CUDA_TAPS:
        return f"the CUDA kernel has footprints of at most {CUDA_TAPS} taps, and this one has {taps}"
    if value_channels > CUDA_VALUE_CHANNELS:
        return f"the CUDA kernel adds up at most {CUDA_VALUE_CHANNELS} channels, and the value has {value_channels}"
    return None


def check_patchwise_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mapping: PatchwiseMapping,
    epilogue: Epilogue | None,
    footprint: Footprint,
    relation: str,
) -> None:
    """Refuses operands that do not fit."""
    if relation not in PATCHWISE_RELATIONS:
        raise ValueError(f"relation must be one of {', '.join(PATCHWISE_RELATIONS)}, got {relation!r}")
    check_map(query, "query")
    check_map(value, "value")
    batch, channels, height, width = query.shape
    check_shape(key, "key", tuple(query.shape), f"query {tuple(query.shape)}")
    check_shape(value, "value", (batch, "C", height, width), f"query {tuple(query.shape)}")
    check_alike(query, "query", key, "key")
    check_alike(query, "query", value, "value")
    check_shape(mapping.hidden_bias, "hidden_bias", ("Cw",), "any value")
    taps, weights = footprint.taps, mapping.hidden_bias.shape[0]
    if weights < 1 or value.shape[1] % weights:
        raise ValueError(
            f"hidden_bias must have a size that divides the channels of value ({value.shape[1]}), got {weights}"
        )
    affine = {"concatenation": (1 + taps, channels), "star": (taps, 1), "clique": (taps * taps, 1)}[relation]
    shapes: list[tuple[int, ...]] = [
        affine,
        affine,
        (*affine, weights),
        (weights,),
        (weights, taps, weights),
        (taps, weights),
    ]
    named = list(zip(mapping._fields, mapping, shapes, strict=True))
    if epilogue is not None:
        size = (value.shape[1],)
        named += [("epilogue.scale", epilogue.scale, size), ("epilogue.shift", epilogue.shift, size)]
    dtype = torch.promote_types(query.dtype, torch.float32)
    for name, parameter, shape in named:
        if parameter.shape != shape:
            check_shape(parameter, name, shape, f"{channels} relation channels, {weights} weights and {footprint}")
        if parameter.dtype != dtype:
            raise TypeError(f"{name} must be {dtype} for a query of {query.dtype}, got {parameter.dtype}")
        if parameter.device != query.device:
            raise ValueError(f"{name} must be on the device of query, {query.device}, got {parameter.device}")


def patchwise_attention_in_torch(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mapping: PatchwiseMapping,
    epilogue: Epilogue | None,
    footprint: Footprint,
    relation: str,
) -> Tensor:
    """The same attention in plain torch, one operation after the other."""
    accumulate = torch.promote_types(query.dtype, torch.float32)
    scale, shift, hidden_weight, hidden_bias, weight, bias = mapping
    kernel_size, stride, dilation, padding_mode = footprint
    features = patchwise_relation(
        query.to(accumulate), key.to(accumulate), kernel_size, relation, stride, dilation, padding_mode
    ).squeeze(2)
    if relation == "concatenation":  # (N, R + R * taps, Ho * Wo), channel by channel -> (N, R, 1 + taps, Ho * Wo)
        centres, keys = features[:, : query.shape[1]], features[:, query.shape[1] :]
        features = torch.cat([centres.unsqueeze(2), keys.unflatten(1, (-1, footprint.taps))], dim=2)
    else:
        features = features.unsqueeze(1)
    activated = torch.relu(features * scale.t().unsqueeze(-1) + shift.t().unsqueeze(-1))
    hidden = torch.relu(torch.einsum("nedp,deh->nhp", activated, hidden_weight) + hidden_bias.unsqueeze(-1))
    weights = torch.einsum("nhp,htw->nwtp", hidden, weight) + bias.t().unsqueeze(-1)
    output = aggregation_in_torch(value.to(accumulate), weights, footprint)
    if epilogue is not None:
        output = torch.relu(output * epilogue.scale.view(-1, 1, 1) + epilogue.shift.view(-1, 1, 1))
    # channels last, by dimensions: torch.vmap knows no memory formats
    return output.to(value.dtype).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def _fake_patchwise_attention(query: Tensor, key: Tensor, value: Tensor, *arguments: Any) -> Tensor:
    stride = arguments[10]
    height, width = output_size(value.shape[2], value.shape[3], stride)
    size = (value.shape[0], value.shape[1], height, width)
    return torch.empty(size, dtype=value.dtype, device=value.device, memory_format=torch.channels_last)


native_attention = native_gradient("patchwise_attention", _fake_patchwise_attention)  # it has no derivative either
_native_devices = devices_of("patchwise_attention")
