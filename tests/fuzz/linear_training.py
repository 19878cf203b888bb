"""Random problems of the linear layers of training: forward, and the gradients of input, weights and biases."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sa_layers.ops import AffineReLU
from sa_layers.ops.linear_training import linear_backward_input, linear_backward_weight, linear_forward

from .case import Case
from .draw import Draw, array
from .linear import bias_of
from .oracle import Array, Estimate

MIN_GAP = 1e-6
"""Rounding may move a value across the zero of the ReLU if it is this close, relative to its terms."""


def linear_training(draw: Draw) -> Case:
    """One to three layers with or without a norm before them, a residual, and maps that are channels of wider ones."""
    draw.dtype, draw.extreme = torch.float32, ""
    channels = draw.one_of((1, 3, 16, 64, 256, 300, 600)) if draw.chance(0.5) else draw.channels(100)
    batch, height, width = draw.one_of((0, 1, 1, 2)), draw.up_to(20), draw.up_to(60)
    sizes = [draw.channels(70) for _ in range(draw.one_of((1, 1, 2, 3)))]
    outputs = sum(sizes)
    weights = [draw.parameter(size, channels, factor=channels**-0.5) for size in sizes]
    biases = [draw.parameter(size) if draw.chance(0.7) else None for size in sizes]
    prologue = AffineReLU(draw.parameter(channels), draw.parameter(channels)) if draw.chance(0.7) else None

    def pixels(number: int) -> Tensor:
        return draw.map(batch, number, height, width).permute(0, 2, 3, 1)

    features, grad = pixels(channels), pixels(outputs)
    residual = pixels(outputs) if draw.chance(0.5) else None
    mean = torch.from_numpy(draw.normal(channels))
    beside = draw.one_of((0, 0, 5))  # channels of wider maps that are written

    def call() -> dict[str, Tensor]:
        wide = torch.full((batch, height, width, outputs + beside), 7.0)
        output = linear_forward(features, weights, biases, prologue, residual, wide[..., beside:])
        whole = torch.full((batch, height, width, channels + beside), 7.0)
        of_input, sums = linear_backward_input(grad, weights, features, prologue, mean, whole[..., beside:])
        of_weights, of_biases = linear_backward_weight(grad, features, prologue, sizes, with_bias=True)
        rest = torch.cat([wide[..., :beside].flatten(), whole[..., :beside].flatten()])
        results = {"output": output, "of input": of_input, "of weights": torch.cat(of_weights), "rest": rest}
        results["of biases"] = torch.cat(of_biases)
        return results if sums is None else results | {"sums": sums}

    matrix = np.concatenate([array(weight) for weight in weights])
    rows, of_rows = array(features).reshape(-1, channels), array(grad).reshape(-1, outputs)
    before = rows if prologue is None else rows * array(prologue.scale) + array(prologue.shift)
    terms = np.abs(rows) if prologue is None else np.abs(rows * array(prologue.scale)) + np.abs(array(prologue.shift))
    activation = before if prologue is None else np.maximum(before, 0)
    output = product(activation, terms, matrix.T)
    added = bias_of(biases, sizes) + (0 if residual is None else array(residual).reshape(-1, outputs))
    output = Estimate(output.value + added, output.scale + np.abs(added))
    of_weights = product(of_rows.T, np.abs(of_rows.T), activation, terms)
    # In maps that repeat a pixel, rounding errors of a sum have one sign: they grow with the number of pixels.
    of_weights = Estimate(of_weights.value, of_weights.scale * max(1, len(rows) / 100))
    of_biases = Estimate(of_rows.sum(0), np.abs(of_rows).sum(0))
    shape = (batch, height, width)
    expected = {"output": shaped(output, shape), "of weights": of_weights, "of biases": of_biases}
    untouched = np.full(beside * rows.shape[0] * 2, 7.0)
    expected["rest"] = Estimate(untouched, np.zeros_like(untouched))
    if prologue is None or not (np.abs(before) < MIN_GAP * terms).any():
        of_input = product(of_rows, np.abs(of_rows), matrix)
        if prologue is not None:
            of_input = Estimate(*(np.where(before > 0, item, 0) for item in of_input))
            deviations = rows - array(mean)
            both = np.stack([np.ones_like(rows), deviations])
            bounds = np.stack([np.ones_like(rows), np.abs(rows) + np.abs(array(mean))])
            value, scale = (of_input.value * both).sum(1), (of_input.scale * bounds).sum(1)
            expected["sums"] = Estimate(value, scale)
        expected["of input"] = shaped(of_input, shape)
    shown = {"features": features, "grad": grad, "weights": weights, "biases": biases, "prologue": prologue}
    return Case(shown | {"residual": residual, "mean": mean, "beside": beside}, call, expected, torch.float32)


def product(left: Array, left_terms: Array, right: Array, right_terms: Array | None = None) -> Estimate:
    """A matrix product, with the sums of the absolute values of all terms."""
    return Estimate(left @ right, left_terms @ (np.abs(right) if right_terms is None else right_terms))


def shaped(rows: Estimate, shape: tuple[int, int, int]) -> Estimate:
    """Rows of pixels as maps (N, H, W, C)."""
    return Estimate(*(item.reshape(*shape, item.shape[1]) for item in rows))
