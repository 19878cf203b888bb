"""The operands of patchwise attention besides its maps, and the checks of all operands."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .affine_relu import AffineReLU
from .checks import check_alike, check_map, check_shape
from .footprint import Footprint
from .patchwise_relation import PATCHWISE_RELATIONS


class PatchwiseMapping(NamedTuple):
    """The mapping γ of :func:`patchwise_attention`, two linear layers with frozen norms.

    All tensors are float32, or float64 for float64 features. (D, E) is (1 + taps, R) for the relation 'concatenation',
    with the query first; (taps, 1) for 'star'; and (taps * taps, 1) for 'clique', in the order of
    :func:`patchwise_relation`.

    Args:
        scale: s of the first norm, (D, E).
        shift: t of the first norm, (D, E).
        hidden_weight: W_1, the first linear layer with the second norm's scale, (D, E, Cw).
        hidden_bias: b_1, the second norm's shift, (Cw,).
        weight: W_2, from the hidden channels to the weights of every tap, (Cw, taps, Cw).
        bias: b_2, (taps, Cw).
    """

    scale: Tensor
    shift: Tensor
    hidden_weight: Tensor
    hidden_bias: Tensor
    weight: Tensor
    bias: Tensor


def check_patchwise_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mapping: PatchwiseMapping,
    footprint: Footprint,
    relation: str,
    epilogue: AffineReLU | None,
) -> None:
    """Raise an error that names the first operand that does not fit."""
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
