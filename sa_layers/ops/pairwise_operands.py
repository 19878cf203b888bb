"""The operands of pairwise attention besides its maps, and the checks of all operands."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .affine_relu import AffineReLU
from .checks import check_alike, check_map, check_shape
from .mapping_layer import Mapping, check_coefficients, check_mapping
from .pairwise_relation import PAIRWISE_RELATIONS, relation_width

MAPPING_LAYERS = 3  # at most
POSITION_CHANNELS = 4  # at most


class PairPosition(NamedTuple):
    r"""The position of a pair as affine maps of coordinates :math:`(x, y, 1)`, from -1 to 1 across the map.

    .. math:: Q (x_i, y_i, 1)^\top + K (x_j, y_j, 1)^\top

    With :math:`K = -Q` it is relative; with complementary rows of zeros in Q and K it is a concatenation. Under 'zeros'
    padding, the second term is 0 for a neighbour beyond the border. A reflected neighbour has the coordinates of the
    pixel that it reflects.

    Args:
        query: Q, (P, 3) with P up to 4; float32, or float64 if the features are.
        key: K, the shape and dtype of ``query``.
        size: (height, width) in pixels of the map across which coordinates run from -1 to 1. Defaults to None, for
            that of the query.
    """

    query: Tensor
    key: Tensor
    size: tuple[int, int] | None = None


def check_pairwise_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mapping: Mapping,
    relation: str,
    position: PairPosition | None,
    epilogue: AffineReLU | None,
) -> None:
    """Raise an error that names the first operand that does not fit."""
    if relation not in PAIRWISE_RELATIONS:
        raise ValueError(f"relation must be one of {', '.join(PAIRWISE_RELATIONS)}, got {relation!r}")
    check_map(query, "query")
    check_map(value, "value")
    given = f"query {tuple(query.shape)}"
    check_shape(key, "key", tuple(query.shape), given)
    check_shape(value, "value", (query.shape[0], "C", *query.shape[2:]), given)
    check_alike(query, "query", key, "key")
    check_alike(query, "query", value, "value")
    coefficients: dict[str, Tensor] = {}
    width = relation_width(relation, query.shape[1])
    if position is not None:
        check_shape(position.query, "position.query", ("P", 3), "coordinates (x, y, 1)")
        check_shape(position.key, "position.key", tuple(position.query.shape), "position.query")
        if position.size is not None and min(position.size) < 2:
            raise ValueError(f"position.size must be at least 2, got {position.size}")
        if len(position.query) > POSITION_CHANNELS:
            raise ValueError(f"position must have at most {POSITION_CHANNELS} rows, got {len(position.query)}")
        coefficients = {"position.query": position.query, "position.key": position.key}
        width += len(position.query)
    width = check_mapping(mapping, MAPPING_LAYERS, width, query, f"relation {relation!r} of {given}")[-1]
    if width < 1 or value.shape[1] % width:
        raise ValueError(
            f"mapping must have a number of outputs that divides the channels of value ({value.shape[1]}), got {width}"
        )
    if epilogue is not None:
        for name, tensor in zip(("epilogue.scale", "epilogue.shift"), epilogue, strict=True):
            check_shape(tensor, name, (value.shape[1],), f"value {tuple(value.shape)}")
            coefficients[name] = tensor
    check_coefficients(query, coefficients)
