"""Random problems of the aggregations and the relations, with all gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sa_layers import ops

from . import oracle
from .case import Case, accumulation
from .draw import Draw, array, footprint_of
from .oracle import Estimate


def with_gradients(function: Callable[..., Tensor], operands: dict[str, Tensor], grad: Tensor) -> dict[str, Tensor]:
    """The output and the gradients of all operands."""
    leaves = {name: operand.detach().requires_grad_() for name, operand in operands.items()}
    output = function(**leaves)
    gradients = torch.autograd.grad(output, list(leaves.values()), grad)
    return {"output": output.detach()} | {f"gradient of {name}": g for name, g in zip(leaves, gradients, strict=True)}


def aggregation(draw: Draw) -> Case:
    return weighted(draw, softmax=False)


def softmax_aggregation(draw: Draw) -> Case:
    return weighted(draw, softmax=True)


def weighted(draw: Draw, softmax: bool) -> Case:
    weights = draw.channels(12)
    channels = weights * draw.up_to(6)
    batch, size, arguments = draw.window_geometry(channels)
    groups = draw.one_of(ops.GROUPS)
    largest = softmax and draw.chance(0.05)
    value = draw.map(batch, channels, *size, extreme=not largest)
    if largest and batch:
        value = value / value.abs().max().clamp(min=1) * torch.finfo(value.dtype).max * 0.9
    footprint = footprint_of(value, arguments)
    shape = (batch, weights, *footprint.index.shape)
    weight = draw.map(*shape, extreme=not softmax)
    if softmax and draw.chance(0.3):
        weight = extreme_logits(draw, weight)
    grad = draw.map(batch, channels, *footprint.output_size, extreme=False)
    arrays = array(value), Estimate(array(weight), np.zeros(shape) if softmax else np.abs(array(weight)))
    factor = oracle.softmax(arrays[1]) if softmax else arrays[1]
    of_value, of_weight = oracle.aggregation_gradients(array(grad), arrays[0], factor, footprint, groups)
    expected = {"output": oracle.aggregate(arrays[0], factor, footprint, groups)}
    if not largest:
        of_weight = oracle.logits_gradient(of_weight, factor) if softmax else of_weight
        expected |= {"gradient of value": of_value, f"gradient of {'logits' if softmax else 'weight'}": of_weight}
    operands = {"value": value, "logits" if softmax else "weight": weight}
    function = ops.softmax_aggregation if softmax else ops.aggregation
    arguments |= {"groups": groups}

    def call() -> dict[str, Tensor]:
        if largest:
            return {"output": function(**operands, **arguments)}
        return with_gradients(lambda **leaves: function(**leaves, **arguments), operands, grad)

    shown = operands | {"grad": grad} | arguments
    return Case(shown, call, expected, accumulation(value.dtype), may_overflow=not largest)


def extreme_logits(draw: Draw, logits: Tensor) -> Tensor:
    """Integers with a large offset, masked taps, one tap far above the others, or one NaN."""
    kind = draw.one_of(("offset", "masked", "peak", "nan"))
    if kind == "offset":
        return (4 * logits).round() + draw.one_of((-1, 1)) * (1e3 if logits.dtype == torch.float16 else 1e4)
    numbers = logits.clone()
    chosen = torch.from_numpy(draw.random.random(tuple(logits.shape)) < (0.5 if kind == "masked" else 0.01))
    if kind == "masked":
        return numbers.masked_fill(chosen, -torch.inf)
    return numbers.masked_fill(chosen, 60.0 if kind == "peak" else torch.nan)


def pairwise_relation(draw: Draw) -> Case:
    relation, channels = draw.one_of(ops.PAIRWISE_RELATIONS), draw.channels()
    batch, size, arguments = draw.window_geometry(channels)
    operands = {name: draw.map(batch, channels, *size) for name in ("query", "key")}
    footprint = footprint_of(operands["query"], arguments)
    arrays = array(operands["query"]), array(operands["key"])
    value = oracle.pairwise_relation(*arrays, relation, footprint)
    grad = draw.map(*value.value.shape, extreme=False)
    of_query, of_key = oracle.pairwise_relation_gradients(array(grad), *arrays, relation, footprint)
    expected = {"output": value, "gradient of query": of_query, "gradient of key": of_key}

    def call() -> dict[str, Tensor]:
        options = arguments | {"relation": relation}
        return with_gradients(lambda **leaves: ops.pairwise_relation(**leaves, **options), operands, grad)

    shown = operands | {"grad": grad, "relation": relation} | arguments
    return Case(shown, call, expected, accumulation(grad.dtype))


def patchwise_relation(draw: Draw) -> Case:
    relation, channels = draw.one_of(ops.PATCHWISE_RELATIONS), draw.channels(16)
    batch, size, arguments = draw.geometry(channels, 25)
    operands = {name: draw.map(batch, channels, *size) for name in ("query", "key")}
    footprint = footprint_of(operands["query"], arguments)
    expected = oracle.patchwise_relation(*map(array, operands.values()), relation, footprint)

    def call() -> dict[str, Tensor]:
        return {"output": ops.patchwise_relation(**operands, relation=relation, **arguments)}

    shown = operands | {"relation": relation} | arguments
    return Case(shown, call, {"output": expected}, accumulation(draw.dtype), native=False)
