"""The official network as a function of its state dict, in float64, and the names that its tensors have in ours.

Written from the paper and the layout of the official checkpoints; shares no code with sa_layers.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CHANNELS = (64, 256, 512, 1024, 2048)
KERNELS = (3, 7, 7, 7, 7)
BLOCKS = {10: (2, 1, 2, 4, 1), 15: (3, 2, 3, 5, 2), 19: (3, 3, 4, 6, 3)}
State = dict[str, Tensor]


def official_shapes(attention: str, depth: int, classes: int = 1000) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of an official checkpoint, but for the batch norms' counters."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, outputs: int, inputs: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs, 1, 1)
        if bias:
            shapes[f"{name}.bias"] = (outputs,)

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)

    linear("conv_in", 64, 3, bias=False)
    norm("bn_in", 64)
    for stage, (channels, kernel) in enumerate(zip(CHANNELS, KERNELS, strict=True)):
        linear(f"conv{stage}", channels, CHANNELS[max(stage - 1, 0)], bias=False)
        norm(f"bn{stage}", channels)
        relation, value, weight = channels // 16, channels // 4, channels // 32
        for number in range(BLOCKS[depth][stage]):
            block = f"layer{stage}.{number}"
            norm(f"{block}.bn1", channels)
            linear(f"{block}.sam.conv1", relation, channels)
            linear(f"{block}.sam.conv2", relation, channels)
            linear(f"{block}.sam.conv3", value, channels)
            pairwise = attention == "pairwise"
            entry = relation + 2 if pairwise else relation * (kernel**2 + 1)
            hidden = relation if pairwise else weight
            norm(f"{block}.sam.conv_w.0", entry)
            linear(f"{block}.sam.conv_w.2", hidden, entry, bias=False)
            norm(f"{block}.sam.conv_w.3", hidden)
            linear(f"{block}.sam.conv_w.5", weight if pairwise else kernel**2 * weight, hidden)
            if pairwise:
                linear(f"{block}.sam.conv_p", 2, 2)
            norm(f"{block}.bn2", value)
            linear(f"{block}.conv", channels, value)
    shapes["fc.weight"], shapes["fc.bias"] = (classes, 2048), (classes,)
    return shapes


def random_state(attention: str, depth: int, classes: int = 10, seed: int = 0) -> State:
    """A checkpoint of random float64 numbers, all of them away from what initialisation would give.

    Scaled so that features neither vanish nor explode: without a softmax, a block is quadratic in its input.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in official_shapes(attention, depth, classes).items():
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        if len(shape) > 1:
            values /= shape[1] ** 0.5
            if attention == "patchwise" and name.endswith(("conv_w.5.weight", ".conv.weight")):
                values /= 20
        elif name.endswith("running_var"):
            values = 0.5 + values.abs()
        elif name.endswith("weight"):
            values = 1 + 0.2 * values
        else:
            values *= 0.3
        state[name] = values
    return state


def our_name(name: str) -> str:
    """The name in SelfAttentionNetwork of a tensor of the official network (the head ``fc`` has none)."""
    steps: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
        (r"^conv_in\.", "stem.0."),
        (r"^bn_in\.", "stem.1."),
        (r"^conv(\d)\.", r"stages.\1.transition."),
        (r"^bn(\d)\.", r"stages.\1.norm."),
        (r"^layer(\d)\.(\d)\.", r"stages.\1.blocks.\2."),
        (r"\.bn([12])\.", r".norm\1."),
        (r"\.conv\.", ".expansion."),
        (r"\.sam\.conv1\.", ".attention.query."),
        (r"\.sam\.conv2\.", ".attention.key."),
        (r"\.sam\.conv3\.", ".attention.value."),
        (r"\.sam\.conv_w\.", ".attention.mapping."),
        (r"\.sam\.conv_p\.", ".attention.position.transform."),
    ]
    for pattern, replacement in steps:
        name = re.sub(pattern, replacement, name)
    return name


def official_network(image: Tensor, state: State, attention: str, depth: int) -> tuple[list[Tensor], Tensor]:
    """The features of the five stages and the logits, in evaluation mode."""
    features = F.relu(norm(linear(image, state, "conv_in"), state, "bn_in"))
    outputs = []
    attend = {"pairwise": pairwise_attention, "patchwise": patchwise_attention}[attention]
    for stage, kernel in enumerate(KERNELS):
        features = linear(F.max_pool2d(features, 2, 2), state, f"conv{stage}")
        for number in range(BLOCKS[depth][stage]):
            block = f"layer{stage}.{number}"
            residual = attend(F.relu(norm(features, state, f"{block}.bn1")), state, f"{block}.sam", kernel)
            features = features + linear(F.relu(norm(residual, state, f"{block}.bn2")), state, f"{block}.conv")
        features = F.relu(norm(features, state, f"bn{stage}"))
        outputs.append(features)
    return outputs, features.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


def linear(features: Tensor, state: State, name: str) -> Tensor:
    """A 1x1 convolution as the matrix that it is."""
    output = torch.einsum("oc,nchw->nohw", state[f"{name}.weight"][:, :, 0, 0], features)
    bias = state.get(f"{name}.bias")
    return output if bias is None else output + bias.view(-1, 1, 1)


def norm(features: Tensor, state: State, name: str) -> Tensor:
    """Batch norm with the running statistics."""
    mean, var, weight, bias = (
        state[f"{name}.{part}"].view(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (features - mean) / (var + 1e-5).sqrt() * weight + bias


def neighbours(features: Tensor, kernel: int) -> Tensor:
    """(N, C, H, W) -> (N, C, K*K, H*W), the border as numpy.pad reflects it."""
    height, width = features.shape[2:]
    rows, columns = (np.pad(np.arange(size), kernel // 2, mode="reflect") for size in (height, width))
    padded = features[:, :, rows][:, :, :, columns]
    taps = [padded[:, :, i : i + height, j : j + width] for i in range(kernel) for j in range(kernel)]
    return torch.stack(taps, 2).flatten(3)


def aggregate(value: Tensor, weight: Tensor, kernel: int) -> Tensor:
    """Channel c of the value is weighted by channel c modulo the number of weight channels."""
    every_channel = weight.repeat(1, value.shape[1] // weight.shape[1], 1, 1)
    return (neighbours(value, kernel) * every_channel).sum(2).view(value.shape)


def mapping(relation: Tensor, state: State, name: str) -> Tensor:
    """Gamma: norm, ReLU, linear, norm, ReLU, linear."""
    hidden = linear(F.relu(norm(relation, state, f"{name}.conv_w.0")), state, f"{name}.conv_w.2")
    return linear(F.relu(norm(hidden, state, f"{name}.conv_w.3")), state, f"{name}.conv_w.5")


def pairwise_attention(features: Tensor, state: State, name: str, kernel: int) -> Tensor:
    """Softmax over the footprint of gamma of [phi_i - psi_j, p_i - p_j]."""
    query, key, value = (linear(features, state, f"{name}.conv{number}") for number in (1, 2, 3))
    height, width = features.shape[2:]
    horizontal, vertical = (torch.linspace(-1, 1, size, dtype=features.dtype) for size in (width, height))
    grid = torch.stack([horizontal.expand(height, width), vertical.view(-1, 1).expand(height, width)]).unsqueeze(0)
    position = linear(grid, state, f"{name}.conv_p")
    relation = query.flatten(2).unsqueeze(2) - neighbours(key, kernel)
    offset = position.flatten(2).unsqueeze(2) - neighbours(position, kernel)
    relation = torch.cat([relation, offset.repeat(len(features), 1, 1, 1)], 1)
    return aggregate(value, mapping(relation, state, name).softmax(2), kernel)


def patchwise_attention(features: Tensor, state: State, name: str, kernel: int) -> Tensor:
    """Gamma of [phi_i, psi_j for all j in the footprint], without a softmax."""
    query, key, value = (linear(features, state, f"{name}.conv{number}") for number in (1, 2, 3))
    relation = torch.cat([query.flatten(2), neighbours(key, kernel).flatten(1, 2)], 1).unsqueeze(2)
    weight = mapping(relation, state, name)
    return aggregate(value, weight.view(len(features), -1, kernel**2, weight.shape[-1]), kernel)
