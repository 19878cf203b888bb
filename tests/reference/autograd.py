"""The gradients of both attentions a second time: by torch's autograd, through operators in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import relu

from sa_layers import ops
from sa_layers.ops import Footprint, backend
from sa_layers.reference import AttentionGradients, BatchNorm, MappingLayer, PairPosition
from sa_layers.reference.mapping import Norm

from .formulation import Array


def convert(item: Any, function: Callable[[Any], Any]) -> Any:
    """Apply a function to all arrays of nested tuples and lists."""
    if isinstance(item, (np.ndarray, Tensor)):
        return function(item)
    if isinstance(item, (tuple, list)):
        parts = [convert(part, function) for part in item]
        return item._make(parts) if hasattr(item, "_make") else type(item)(parts)
    return item


def arrays(item: Any) -> list[Array]:
    """Return all arrays of nested tuples and lists, in order."""
    found: list[Array] = []
    convert(item, found.append)
    return found


def attention_and_gradients(
    name: str,
    grad_output: Array,
    inputs: AttentionGradients,
    relation: str,
    **geometry: Any,
) -> tuple[Array, AttentionGradients]:
    """Return the output and the gradients of 'pairwise_attention' or 'patchwise_attention', of given inputs."""
    leaves = convert(inputs, lambda array: torch.tensor(array, requires_grad=True))
    attend = {"pairwise_attention": pairwise_attention, "patchwise_attention": patchwise_attention}[name]
    with backend("torch"):
        output = attend(leaves, relation, geometry)
        output.backward(torch.from_numpy(grad_output))
    gradients = convert(leaves, lambda leaf: np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy())
    return output.detach().numpy(), gradients


def pairwise_attention(inputs: AttentionGradients, relation: str, geometry: dict[str, Any]) -> Tensor:
    features = ops.pairwise_relation(inputs.query, inputs.key, relation=relation, **geometry)
    if inputs.position is not None:
        encoded = pair_position(inputs.position, features.new_ones(inputs.query.shape[2:]), geometry)
        features = torch.cat([features, encoded.expand(len(features), -1, -1, -1)], 1)
    logits = apply_mapping(features, inputs.mapping)
    return rectified(ops.softmax_aggregation(inputs.value, logits, **geometry), inputs.epilogue)


def patchwise_attention(inputs: AttentionGradients, relation: str, geometry: dict[str, Any]) -> Tensor:
    features = ops.patchwise_relation(inputs.query, inputs.key, relation=relation, **geometry)
    outputs, taps = apply_mapping(features, inputs.mapping), Footprint.parse(**geometry).taps
    weight = outputs.unflatten(1, (-1, taps)).squeeze(3)
    return rectified(ops.aggregation(inputs.value, weight, **geometry), inputs.epilogue)


def pair_position(position: PairPosition, ones: Tensor, geometry: dict[str, Any]) -> Tensor:
    """Return (1, P, Kh*Kw, Ho*Wo), for a map of ``ones``."""
    height, width = ones.shape
    rows, columns = (torch.linspace(-1, 1, length, dtype=ones.dtype) for length in (height, width))
    grid = torch.stack([columns * ones, rows[:, None] * ones, ones])
    here, there = (torch.einsum("pc,chw->phw", matrix, grid)[None] for matrix in position[:2])
    return ops.pairwise_relation(here, there, relation="summation", **geometry)


def apply_mapping(features: Tensor, mapping: list[MappingLayer]) -> Tensor:
    for norm, weight, bias in mapping:
        features = torch.einsum("oc,nctp->notp", weight, rectified(features, norm, always=True))
        features = features + (0 if bias is None else bias[:, None, None])
    return features


def rectified(features: Tensor, norm: Norm | None, always: bool = False) -> Tensor:
    """Apply a norm and a ReLU; without a norm, a ReLU only if ``always``."""
    if isinstance(norm, BatchNorm):
        variance, mean = torch.var_mean(features, (0, 2, 3), correction=0, keepdim=True)
        features = (features - mean) / (variance + norm.eps).sqrt()
    if norm is not None:
        features = features * norm[0][:, None, None] + norm[1][:, None, None]
    return relu(features) if always or norm is not None else features
