"""The operands of patchwise attention besides its maps, and the checks of all operands."""

from __future__ import annotations

from torch import Tensor

from .affine_relu import AffineReLU
from .checks import check_alike, check_map, check_shape
from .footprint import Footprint
from .mapping_layer import Mapping, check_coefficients, check_mapping
from .patchwise_relation import PATCHWISE_RELATIONS

MAPPING_LAYERS = 2


def features_of(relation: str, channels: int, taps: int) -> int:
    """F, the features of a footprint that the mapping reads.

    Example:
        >>> features_of("concatenation", 4, 9), features_of("star", 4, 9), features_of("clique", 4, 9)
        (40, 9, 81)
    """
    return {"concatenation": channels * (1 + taps), "star": taps, "clique": taps * taps}[relation]


def check_patchwise_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mapping: Mapping,
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
    taps, given = footprint.taps, f"relation {relation!r}, {channels} relation channels and {footprint}"
    if len(mapping) != MAPPING_LAYERS:
        raise ValueError(f"mapping must consist of {MAPPING_LAYERS} MappingLayer, got {len(mapping)} items")
    features = features_of(relation, channels, taps)
    _, hidden, outputs = check_mapping(mapping, MAPPING_LAYERS, features, query, given)
    if hidden < 1 or value.shape[1] % hidden:
        raise ValueError(
            f"mapping must have a number of hidden channels that divides the channels of value ({value.shape[1]}), "
            f"got {hidden}"
        )
    if outputs != hidden * taps:
        raise ValueError(f"mapping must have an output for each of {hidden} weights and {taps} taps, got {outputs}")
    if epilogue is not None:
        for name, tensor in zip(("epilogue.scale", "epilogue.shift"), epilogue, strict=True):
            check_shape(tensor, name, (value.shape[1],), f"value {tuple(value.shape)}")
            check_coefficients(query, {name: tensor})
