"""Random problems of the linear layers, norms and poolings of evaluation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sa_layers.ops import AffineReLU
from sa_layers.ops.affine_relu import affine_relu as op_affine_relu
from sa_layers.ops.affine_relu import affine_relu_ as op_affine_relu_
from sa_layers.ops.pooled_projection import pooled_projection as op_pooled_projection
from sa_layers.ops.projection import Linear, project

from . import oracle
from .case import Case, accumulation
from .draw import Draw, array
from .oracle import Array, Estimate


def projection(draw: Draw) -> Case:
    """One to three layers, with all that may come before, between and after."""
    channels = draw.one_of((1, 3, 16, 64, 256, 300, 600)) if draw.chance(0.5) else draw.channels(100)
    size = draw.one_of((0, 1, 1, 2)), draw.up_to(20), draw.up_to(40)
    features = draw.map(size[0], channels, *size[1:]).permute(0, 2, 3, 1)
    outputs = [draw.channels(70) for _ in range(draw.one_of((1, 1, 2, 3)))]
    shapes = [(out, channels, 1, 1) if draw.chance(0.5) else (out, channels) for out in outputs]
    weights = [draw.parameter(*shape, factor=channels**-0.5).to(draw.dtype) for shape in shapes]
    biases = [draw.parameter(out).to(draw.dtype) if draw.chance(0.7) else None for out in outputs]
    pool, accumulate, width = draw.chance(0.3) and min(size[1:]) > 1, draw.chance(0.3), sum(outputs)
    prologue = AffineReLU(draw.parameter(channels), draw.parameter(channels)) if draw.chance(0.5) else None
    epilogue = AffineReLU(draw.parameter(width), draw.parameter(width)) if draw.chance(0.5) else None
    linear = Linear.of_layers(weights, biases)
    to = draw.map(size[0], width, *(length // (2 if pool else 1) for length in size[1:]), extreme=False)
    whole = linear.new_map(to.permute(0, 2, 3, 1)) if draw.chance(0.5) and epilogue is None else None

    def call() -> dict[str, Tensor]:
        out = to.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
        if whole is not None:
            out = torch.zeros_like(whole)
            out[..., :width] = to.permute(0, 2, 3, 1)
        project(
            features.contiguous(), linear, out, accumulate=accumulate, prologue=prologue, epilogue=epilogue, pool=pool
        )
        return {"output": out[..., :width].permute(0, 3, 1, 2)}

    value = array(features).transpose(0, 3, 1, 2)
    at = Estimate(value, np.abs(value))
    if prologue is not None:
        at = oracle.affine_relu(at, *map(array, prologue))
    if pool:
        at = Estimate(*map(oracle.max_pooling, at))
    matrix = np.concatenate(
        [array(weight).reshape(out, channels) for weight, out in zip(weights, outputs, strict=True)]
    )
    at = oracle.linear(at, matrix, np.zeros(width) if accumulate else bias_of(biases, outputs))
    if accumulate:
        at = Estimate(at.value + array(to), at.scale + np.abs(array(to)))
    if epilogue is not None:
        at = oracle.affine_relu(at, *map(array, epilogue))
    native = linear.kernel == "panels"
    shown = {"features": features, "weights": weights, "biases": biases, "prologue": prologue, "epilogue": epilogue}
    shown |= {"to": to, "pool": pool, "accumulate": accumulate, "whole panels": whole is not None}
    return Case(shown, call, {"output": at}, torch.float32 if native else draw.dtype, native)


def bias_of(biases: list[Tensor | None], outputs: list[int]) -> Array:
    pairs = zip(biases, outputs, strict=True)
    return np.concatenate([np.zeros(out) if bias is None else array(bias) for bias, out in pairs])


def affine_relu(draw: Draw) -> Case:
    channels = draw.channels(100)
    features = draw.map(draw.one_of((0, 1, 2)), channels, draw.up_to(9), draw.up_to(40)).permute(0, 2, 3, 1)
    scale, shift = draw.parameter(channels), draw.parameter(channels)
    value = array(features).transpose(0, 3, 1, 2)
    result = oracle.affine_relu(Estimate(value, np.abs(value)), array(scale), array(shift))
    expected = Estimate(*(item.transpose(0, 2, 3, 1) for item in result))

    def call() -> dict[str, Tensor]:
        changed = features.clone()
        op_affine_relu_(changed, scale, shift)
        return {"output": op_affine_relu(features, scale, shift), "in place": changed}

    shown = {"features": features, "scale": scale, "shift": shift}
    return Case(shown, call, {"output": expected, "in place": expected}, accumulation(draw.dtype))


def pooled_projection(draw: Draw) -> Case:
    inputs, channels = draw.up_to(5), draw.channels(70)
    image = draw.map(draw.one_of((0, 1, 2)), inputs, draw.up_to(12), draw.up_to(50))
    weight, shift = draw.parameter(inputs, channels), draw.parameter(channels)
    value = array(image)
    layer = oracle.linear(Estimate(value, np.abs(value)), array(weight).T, array(shift))
    expected = Estimate(np.maximum(oracle.max_pooling(layer.value), 0), oracle.max_pooling(layer.scale))

    def call() -> dict[str, Tensor]:
        return {"output": op_pooled_projection(image, weight, shift).permute(0, 3, 1, 2)}

    return Case({"image": image, "weight": weight, "shift": shift}, call, {"output": expected}, weight.dtype)
