"""The equations of a block and of a network as functions of parameters, with ``unfold`` and ``torch.nn.functional``.

Nothing of this library is imported: a block's parameters by name, its options and a map are all that is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
"""Parameters and buffers by name; the norms replace their running statistics."""


def network(state: State, image: Tensor, options: dict[str, Any], evaluated: Sequence[str] = ()) -> list[Tensor]:
    """The features of all stages: linear layer, norm and ReLU of every pixel, then the stages.

    Args:
        state: The state of the network.
        image: (N, C, H, W).
        options: ``depth``, ``kernel_sizes``, ``strides``, ``dilations`` and those of the blocks.
        evaluated: Prefixes of the names of norms that use running statistics.
    """
    features, outputs = relu_norm(state, "stem.1", linear(state, "stem.0", image), evaluated), []
    for stage, blocks in enumerate(options["depth"]):
        name = f"stages.{stage}"
        if options["strides"][stage] == 2:
            features = F.max_pool2d(features, 2)
        features = linear(state, f"{name}.transition", features)
        own = {"kernel_size": options["kernel_sizes"][stage], "dilation": options["dilations"][stage]}
        for index in range(blocks):
            features = block(state, features, options | own, f"{name}.blocks.{index}.", evaluated)
        features = relu_norm(state, f"{name}.norm", features, evaluated)
        outputs.append(features)
    return outputs


def block(
    state: State, features: Tensor, options: dict[str, Any], prefix: str = "", evaluated: Sequence[str] = ()
) -> Tensor:
    """x + expansion(relu(norm2(attention(relu(norm1(x)))))), (N, C, H, W) -> (N, C, H, W)."""
    normalised = relu_norm(state, f"{prefix}norm1", features, evaluated)
    attended = attention(state, normalised, options, f"{prefix}attention.", evaluated)
    return features + linear(state, f"{prefix}expansion", relu_norm(state, f"{prefix}norm2", attended, evaluated))


def attention(
    state: State, features: Tensor, options: dict[str, Any], prefix: str = "", evaluated: Sequence[str] = ()
) -> Tensor:
    """Equation 2 or 4 of the paper, (N, C, H, W) -> (N, C', H, W)."""
    query = linear(state, f"{prefix}query", features)
    key = query if options["shared_transforms"] else linear(state, f"{prefix}key", features)
    value = query if options["shared_transforms"] == "all" else linear(state, f"{prefix}value", features)
    (batch, _, height, width), channels = query.shape, value.shape[1]
    centre, keys, values = query.flatten(2).unsqueeze(2), unfold(key, options), unfold(value, options)
    if options["attention"] == "pairwise":
        compared = pairwise(options["relation"], centre, keys)
        if kind := options["position"]:
            here, there = positions(state, f"{prefix}position.transform", query, options)
            offsets = here - there if kind == "relative" else torch.cat([here.expand_as(there), there], 1)
            compared = torch.cat([compared, offsets.expand(batch, -1, -1, -1)], 1)
    else:
        compared = patchwise(options["relation"], centre, keys, unfold(query, options))
    for layer in range(options["mapping_layers"]):
        compared = relu_norm(state, f"{prefix}mapping.{3 * layer}", compared, evaluated)
        compared = linear(state, f"{prefix}mapping.{3 * layer + 2}", compared)
    if options["attention"] == "pairwise":
        weights = compared.softmax(2)
    else:
        weights = compared.view(batch, -1, keys.shape[2], height * width)
    # channel c is weighted by weight c modulo their number
    weighted = values.unflatten(1, (-1, weights.shape[1])) * weights.unsqueeze(1)
    return weighted.sum(3).reshape(batch, channels, height, width)


def pairwise(relation: str, centre: Tensor, keys: Tensor) -> Tensor:
    """(N, R, 1, P) and (N, R, K, P) -> (N, D, K, P)."""
    if relation == "subtraction":
        return centre - keys
    if relation == "summation":
        return centre + keys
    if relation == "concatenation":
        return torch.cat([centre.expand_as(keys), keys], 1)
    product = centre * keys
    return product if relation == "hadamard" else product.sum(1, keepdim=True)


def patchwise(relation: str, centre: Tensor, keys: Tensor, queries: Tensor) -> Tensor:
    """(N, R, 1, P), (N, R, K, P) twice -> (N, D, 1, P)."""
    if relation == "star":
        return torch.einsum("ncip,nckp->nkp", centre, keys).unsqueeze(2)
    if relation == "clique":
        return torch.einsum("ncjp,nckp->njkp", queries, keys).flatten(1, 2).unsqueeze(2)
    return torch.cat([centre.flatten(1, 2), keys.flatten(1, 2)], 1).unsqueeze(2)


def positions(state: State, name: str, features: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The encoded positions of pixels and of their neighbours, (1, 2, 1, P) and (1, 2, K, P)."""
    rows, columns = (torch.linspace(-1, 1, side, dtype=features.dtype) for side in features.shape[2:])
    grid = torch.stack([columns.expand(len(rows), -1), rows.unsqueeze(1).expand(-1, len(columns))])
    encoded = linear(state, name, grid.unsqueeze(0))
    return encoded.flatten(2).unsqueeze(2), unfold(encoded, options)


def unfold(features: Tensor, options: dict[str, Any]) -> Tensor:
    """Every pixel's neighbours: (N, C, H, W) -> (N, C, K * K, H * W), reflected at borders or zero beyond them."""
    kernel, dilation = options["kernel_size"], options["dilation"]
    border = dilation * (kernel // 2)
    if options["padding_mode"] == "zeros":
        padded = F.pad(features, (border,) * 4)
    else:
        rows, columns = (reflected(side, border) for side in features.shape[2:])
        padded = features[:, :, rows][:, :, :, columns]
    return F.unfold(padded, kernel, dilation).unflatten(1, (features.shape[1], kernel * kernel))


def reflected(side: int, border: int) -> Tensor:
    """The pixels from -border to side + border - 1, bounced off the first and the last pixel as often as needed."""
    period = max(2 * (side - 1), 1)
    return ((torch.arange(-border, side + border) + side - 1) % period - (side - 1)).abs()


def linear(state: State, name: str, features: Tensor) -> Tensor:
    """A matrix that is applied to every pixel."""
    output = torch.einsum("oc,nchw->nohw", state[f"{name}.weight"].flatten(1), features)
    return output + state[f"{name}.bias"].view(-1, 1, 1) if f"{name}.bias" in state else output


def relu_norm(state: State, name: str, features: Tensor, evaluated: Sequence[str]) -> Tensor:
    """A batch norm with torch's default options, and a ReLU; batch statistics move the running ones by a tenth."""
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    if not name.startswith(tuple(evaluated)):
        values = features.transpose(0, 1).flatten(1)
        state[f"{name}.running_mean"] = 0.9 * mean + 0.1 * values.detach().mean(1)
        state[f"{name}.running_var"] = 0.9 * var + 0.1 * values.detach().var(1, correction=1)
        state[f"{name}.num_batches_tracked"] = state[f"{name}.num_batches_tracked"] + 1
        mean = values.mean(1)
        var = (values - mean.unsqueeze(1)).square().mean(1)
    scale = state[f"{name}.weight"] / (var + 1e-5).sqrt()
    return ((features - mean.view(-1, 1, 1)) * scale.view(-1, 1, 1) + state[f"{name}.bias"].view(-1, 1, 1)).clamp(min=0)
