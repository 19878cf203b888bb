"""Pairwise relations δ(x_i, x_j): a pixel compared with each neighbour in its footprint."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from .backend import choose
from .checks import autocast, check_alike, check_map, check_shape, check_tensors
from .footprint import ALL_PADDING_MODES, Footprint, IntOrPair, output_size
from .native import differentiable_operator
from .reference_backend import compute_by_reference

PAIRWISE_RELATIONS = ("subtraction", "summation", "hadamard", "dot", "concatenation")


def pairwise_relation(
    query: Tensor,
    key: Tensor,
    kernel_size: IntOrPair,
    relation: str = "subtraction",
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
    padding_mode: str = "reflect",
) -> Tensor:
    r"""Compare the query of every pixel with the keys of its footprint.

    With :math:`\varphi_i` the query and :math:`\psi_j` the key, the relations of the paper's section 3.1 are

    - 'subtraction': :math:`\varphi_i - \psi_j`, D = C
    - 'summation': :math:`\varphi_i + \psi_j`, D = C
    - 'hadamard': :math:`\varphi_i \odot \psi_j`, D = C
    - 'dot': :math:`\varphi_i^\top \psi_j`, D = 1
    - 'concatenation': :math:`[\varphi_i, \psi_j]`, D = 2C

    Args:
        query: φ, (N, C, H, W); float64, float32, float16 or bfloat16, of any strides.
        key: ψ, the shape, dtype and device of ``query``. Under 'zeros' padding a key beyond the border is 0.
        kernel_size: Taps of the footprint, odd; an integer or (height, width).
        relation: One of the five above.
        stride: Pixels between footprints. Defaults to 1.
        dilation: Pixels between taps. Defaults to 1.
        padding_mode: 'reflect' (default) or 'zeros' beyond the border, or 'clamp'; see
            :func:`~sa_layers.ops.aggregation`.

    Returns:
        (N, D, Kh * Kw, Ho * Wo).

    Raises:
        TypeError: A dtype is not allowed, or the two differ outside autocast.
        ValueError: A shape, size, mode or relation does not fit; the message names it.

    Example:
        >>> features = torch.arange(9.0).view(1, 1, 3, 3)
        >>> pairwise_relation(features, features, kernel_size=3)[0, 0, :, 4]
        tensor([ 4.,  3.,  2.,  1.,  0., -1., -2., -3., -4.])
    """
    footprint = Footprint.parse(kernel_size, stride, dilation, padding_mode, allowed=ALL_PADDING_MODES)
    if relation not in PAIRWISE_RELATIONS:
        raise ValueError(f"relation must be one of {', '.join(PAIRWISE_RELATIONS)}, got {relation!r}")
    check_tensors(query=query, key=key)
    query, key = autocast(query, key)
    check_map(query, "query")
    footprint.check_size(query.shape[2], query.shape[3])
    check_shape(key, "key", tuple(query.shape), f"query {tuple(query.shape)}")
    check_alike(query, "query", key, "key")
    chosen = choose(query.device)
    if chosen == "native":
        return native_relation(query, key, *geometry_of(footprint, relation))
    if chosen == "reference":
        return compute_by_reference("pairwise_relation", query, key, footprint, relation=relation)
    return pairwise_relation_in_torch(query, key, footprint, relation)


def geometry_of(footprint: Footprint, relation: str) -> tuple[Any, ...]:
    """The arguments after the tensors in the schemas: kernel_size, relation, stride, dilation, padding_mode."""
    kernel_size, *rest = footprint
    return (kernel_size, relation, *rest)


def relation_width(relation: str, channels: int) -> int:
    """The channels D of a relation between maps with ``channels`` channels."""
    return {"dot": 1, "concatenation": 2 * channels}.get(relation, channels)


def pairwise_relation_in_torch(query: Tensor, key: Tensor, footprint: Footprint, relation: str) -> Tensor:
    """Compute :func:`pairwise_relation` in plain torch, by broadcasting over the unfolded keys."""
    centre = footprint.centre(query).flatten(2).unsqueeze(2)
    neighbours = footprint.unfold(key)
    if relation == "subtraction":
        return centre - neighbours
    if relation == "summation":
        return centre + neighbours
    if relation == "hadamard":
        return centre * neighbours
    if relation == "dot":
        accumulate = torch.promote_types(query.dtype, torch.float32)
        return (centre * neighbours).sum(1, keepdim=True, dtype=accumulate).to(query.dtype)
    return torch.cat([centre.expand_as(neighbours), neighbours], dim=1)


# 'hadamard' and 'dot' are products of query and key, so their gradients are relations and gradients again, as in
# aggregation. The other relations are linear: their gradients do not depend on the values of query and key.

_PRODUCTS = ("hadamard", "dot")


def _fake_relation(query: Tensor, kernel_size: Any, relation: str, stride: Any) -> Tensor:
    channels = relation_width(relation, query.shape[1])
    height, width = output_size(query.shape[2], query.shape[3], stride)
    return query.new_empty(query.shape[0], channels, kernel_size[0] * kernel_size[1], height * width)


def _setup_relation(ctx: Any, inputs: tuple, output: Tensor) -> None:
    query, key, *ctx.geometry = inputs
    ctx.save_for_backward(query, key)


def _backward_relation(ctx: Any, grad: Tensor) -> tuple:
    query, key = ctx.saved_tensors
    geometry = (query.shape[2], query.shape[3], *ctx.geometry)
    return (
        native_query_gradient(grad, key, *geometry) if ctx.needs_input_grad[0] else None,
        native_key_gradient(grad, query, *geometry) if ctx.needs_input_grad[1] else None,
        *(None,) * 5,
    )


def _fake_query_gradient(grad_output: Tensor, key: Tensor, height: int, width: int) -> Tensor:
    return grad_output.new_empty(key.shape[0], key.shape[1], height, width)


def _fake_key_gradient(grad_output: Tensor, query: Tensor, height: int, width: int) -> Tensor:
    return grad_output.new_empty(query.shape[0], query.shape[1], height, width)


def _setup_gradient(ctx: Any, inputs: tuple, output: Tensor) -> None:
    grad, other, ctx.height, ctx.width, *ctx.geometry = inputs
    ctx.save_for_backward(grad, other)


def _backward_gradient(ctx: Any, grad_gradient: Tensor, *, of_query: bool) -> tuple:
    grad, other = ctx.saved_tensors
    _, relation, *_ = ctx.geometry
    product = relation in _PRODUCTS
    grad_needs, other_needs = ctx.needs_input_grad[:2]
    grad_of_grad = grad_of_other = None
    if grad_needs:
        constant = other if product else torch.zeros_like(other)
        pair = (grad_gradient, constant) if of_query else (constant, grad_gradient)
        grad_of_grad = native_relation(*pair, *ctx.geometry)
    if other_needs and product:
        gradient = native_key_gradient if of_query else native_query_gradient
        grad_of_other = gradient(grad, grad_gradient, ctx.height, ctx.width, *ctx.geometry)
    return grad_of_grad, grad_of_other, *(None,) * 7


def _tangent_relation(
    query: Tensor, key: Tensor, query_change: Tensor, key_change: Tensor, kernel_size: Any, relation: str, *rest: Any
) -> Tensor:
    geometry = (kernel_size, relation, *rest)
    if relation not in _PRODUCTS:
        return native_relation(query_change, key_change, *geometry)
    return native_relation(query_change, key, *geometry) + native_relation(query, key_change, *geometry)


def _tangent_gradient(
    grad: Tensor,
    other: Tensor,
    grad_change: Tensor,
    other_change: Tensor,
    height: int,
    width: int,
    kernel_size: Any,
    relation: str,
    *rest: Any,
    of_query: bool,
) -> Tensor:
    gradient = native_query_gradient if of_query else native_key_gradient
    geometry = (height, width, kernel_size, relation, *rest)
    change = gradient(grad_change, other, *geometry)
    return change + gradient(grad, other_change, *geometry) if relation in _PRODUCTS else change


native_relation = differentiable_operator(
    "pairwise_relation", _fake_relation, _setup_relation, _backward_relation, _tangent_relation
)
native_query_gradient, native_key_gradient = (
    differentiable_operator(
        f"pairwise_relation_{operand}_gradient",
        _fake_query_gradient if operand == "query" else _fake_key_gradient,
        _setup_gradient,
        partial(_backward_gradient, of_query=operand == "query"),
        partial(_tangent_gradient, of_query=operand == "query"),
    )
    for operand in ("query", "key")
)
