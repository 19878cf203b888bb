"""Runs every kernel once in every dtype, forward and backward, on shapes small enough for compute-sanitizer.

python tools/run_kernels.py [DEVICE]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sa_layers.benchmark.problems import STAGES
from sa_layers.command_line import command
from sa_layers.ops import (
    PADDING_MODES,
    PAIRWISE_RELATIONS,
    PATCHWISE_RELATIONS,
    AffineReLU,
    Footprint,
    MappingLayer,
    PairPosition,
    aggregation,
    backend,
    pairwise_attention,
    pairwise_relation,
    patchwise_attention,
    softmax_aggregation,
)
from sa_layers.ops.affine_relu import affine_relu, affine_relu_
from sa_layers.ops.checks import DTYPES
from sa_layers.ops.max_pooling import max_pooling
from sa_layers.ops.pooled_projection import pooled_projection
from sa_layers.ops.projection import Linear, project

# Channels, weight channels, size, footprint: tiles by rows and by columns, maps packed into blocks, maps smaller than
# the footprint, and what is left to the general kernels.
SHAPES = [
    (8, 1, (20, 37), Footprint.parse(7)),
    (16, 2, (19, 16), Footprint.parse(3)),
    (16, 2, (7, 7), Footprint.parse(7)),
    (5, 5, (2, 9), Footprint.parse(5)),
    (6, 2, (9, 8), Footprint.parse((3, 5), (2, 1), (1, 2))),
]


def differentiate(operator: Callable[..., Tensor], first: Tensor, second: Tensor, **arguments: object) -> None:
    """Forward and backward."""
    operands = (first.requires_grad_(), second.requires_grad_())
    torch.autograd.grad(operator(*operands, **arguments).square().sum(), operands)


def in_both_precisions(operator: Callable[..., Tensor], *operands: Any, **arguments: Any) -> None:
    """With TF32 and without."""
    for precision in ("ieee", "tf32"):
        torch.backends.cuda.matmul.fp32_precision = precision
        with torch.no_grad():
            operator(*operands, **arguments)
    torch.backends.cuda.matmul.fp32_precision = "ieee"


def make_mapping(widths: list[int], features: Tensor) -> list[MappingLayer]:
    """Random layers: the first has weights in the dtype of the features, the others in that of accumulation."""
    accumulate = torch.promote_types(features.dtype, torch.float32)
    normal, layers = partial(torch.randn, device=features.device, dtype=accumulate), []
    for index, (one, other) in enumerate(pairwise(widths)):
        dtype = features.dtype if index == 0 else accumulate
        layers.append(MappingLayer(normal(one), normal(one), normal(other, one).to(dtype), normal(other).to(dtype)))
    return layers


def attend(query: Tensor, key: Tensor, value: Tensor, relation: str, weight_channels: int, **arguments: Any) -> None:
    """The fused kernel, with all that it can be asked for."""
    channels = query.shape[1]
    normal = partial(torch.randn, device=query.device, dtype=torch.promote_types(query.dtype, torch.float32))
    width = 2 + {"dot": 1, "concatenation": 2 * channels}.get(relation, channels)
    position = PairPosition(normal(2, 3), normal(2, 3))
    epilogue = AffineReLU(normal(value.shape[1]), normal(value.shape[1]))
    maps = [item.to(memory_format=torch.channels_last) for item in (query, key, value)]
    for widths in ([width, weight_channels], [width, channels, weight_channels]):
        mapping = make_mapping(widths, query)
        in_both_precisions(
            pairwise_attention, *maps, mapping, relation=relation, position=position, epilogue=epilogue, **arguments
        )


def attend_to_patches(
    query: Tensor, key: Tensor, value: Tensor, relation: str, weights: int, taps: int, **arguments: Any
) -> None:
    """The same of patchwise attention."""
    channels = query.shape[1]
    normal = partial(torch.randn, device=query.device, dtype=torch.promote_types(query.dtype, torch.float32))
    features = {"concatenation": (1 + taps) * channels, "star": taps, "clique": taps * taps}[relation]
    mapping = make_mapping([features, weights, weights * taps], query)
    epilogue = AffineReLU(normal(value.shape[1]), normal(value.shape[1]))
    maps = [item.to(memory_format=torch.channels_last) for item in (query, key, value)]
    in_both_precisions(patchwise_attention, *maps, mapping, relation=relation, epilogue=epilogue, **arguments)


def attend_in_stages(device: str, dtype: torch.dtype) -> None:
    """Both attentions at the widths of SAN, on maps that end within a tile."""
    for stage in (*STAGES, STAGES[3]._replace(kernel_size=5)):  # the last one's width has no code of its own
        channels, weights, kernel_size = stage.relation_channels, stage.weight_channels, stage.kernel_size
        normal = partial(torch.randn, device=device, dtype=dtype)
        query, key, value = (normal(2, number, 9, 11) for number in (channels, channels, 8 * weights))
        for padding_mode in PADDING_MODES:
            arguments: dict[str, Any] = {"kernel_size": kernel_size, "padding_mode": padding_mode}
            for relation in ("subtraction", "summation"):
                attend(query, key, value, relation, weights, **arguments)
            attend_to_patches(query, key, value, "concatenation", weights, kernel_size**2, **arguments)


def evaluate(device: str, dtype: torch.dtype) -> None:
    """What stands around the linear layers in evaluation: channels and images that are loaded at once, and others."""
    normal = partial(torch.randn, device=device, dtype=dtype)
    coefficients = partial(normal, dtype=torch.promote_types(dtype, torch.float32))
    for channels in (5, 64):
        features, scale, shift = normal(2, 9, 12, channels), coefficients(channels), coefficients(channels)
        affine_relu_(affine_relu(features, scale, shift), scale, shift)
        max_pooling(max_pooling(features), scale, shift)
        for size in ((2, 3, 8, 6), (2, 3, 9, 7), (2, 4, 9, 7)):
            pooled_projection(normal(size), coefficients(size[1], channels), shift)
    for width in (24, 48, 96):
        linear = Linear.of_layers([normal(width, 96)], [None])
        before = AffineReLU(coefficients(96), coefficients(96))
        project(normal(2, 9, 12, 96), linear, linear.new_map(normal(2, 9, 12, 1)), prologue=before)


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Runs all of them; the result is the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("device", nargs="?", choices=["cpu", "cuda"], default="cuda", help="default: cuda")
    device = parser.parse_args(argv).device
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU on this machine; give cpu")
    for channels, weight_channels, size, footprint in SHAPES:
        height, width = footprint.output_size(*size)
        for dtype in DTYPES:
            normal = partial(torch.randn, device=device, dtype=dtype)
            for padding_mode in PADDING_MODES:
                arguments = footprint._replace(padding_mode=padding_mode)._asdict()
                for operator in (aggregation, softmax_aggregation):
                    weight = normal(2, weight_channels, footprint.taps, height * width)
                    differentiate(operator, normal(2, channels, *size), weight, **arguments)
                for relation in PAIRWISE_RELATIONS:
                    query, key = normal(2, channels, *size), normal(2, channels, *size)
                    differentiate(pairwise_relation, query, key, relation=relation, **arguments)
                    attend(query, key, key, relation, weight_channels, **arguments)
                for relation in PATCHWISE_RELATIONS:
                    query, key = normal(2, channels, *size), normal(2, channels, *size)
                    attend_to_patches(query, key, key, relation, weight_channels, footprint.taps, **arguments)
    for dtype in DTYPES:
        evaluate(device, dtype)
    for dtype in (torch.float16, torch.bfloat16):
        attend_in_stages(device, dtype)
    if device == "cuda":
        torch.cuda.synchronize()
    print("every kernel ran")
    return 0


if __name__ == "__main__":
    with backend("native"):
        sys.exit(main())
