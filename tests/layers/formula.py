"""The equations of both attention layers as one function of a layer's parameters, in plain torch.

Takes nothing from the layer but its parameters and the options that it was made with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def self_attention(layer: nn.Module, features: Tensor, options: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """The output in training mode, and the running statistics that the forward pass leaves behind."""
    state = dict(layer.state_dict(keep_vars=True))
    pairwise = type(layer).__name__ == "PairwiseSelfAttention"
    sharing, relation = options.get("shared_transforms"), options["relation"]
    query = linear(features, state, "query")
    key = query if sharing else linear(features, state, "key")
    value = query if sharing == "all" else linear(features, state, "value")
    taps = lambda features: neighbours(features, options)  # noqa: E731

    centre, keys = taps(query)[1], taps(key)[0]
    if relation == "clique":
        queries = taps(query)[0]
        compared = torch.stack(
            [(queries[:, :, j] * keys[:, :, k]).sum(1) for j in range(keys.shape[2]) for k in range(keys.shape[2])], 1
        ).unsqueeze(2)
    elif relation == "star":
        compared = (centre * keys).sum(1).unsqueeze(2)
    elif not pairwise:
        compared = torch.cat([centre.squeeze(2), keys.flatten(1, 2)], 1).unsqueeze(2)
    elif relation == "concatenation":
        compared = torch.cat([centre.expand_as(keys), keys], 1)
    else:
        compared = {"subtraction": centre - keys, "summation": centre + keys, "hadamard": centre * keys}.get(
            relation, (centre * keys).sum(1, keepdim=True)
        )
    if options.get("position"):
        height, width = features.shape[2:]
        rows, columns = (torch.linspace(-1, 1, size, dtype=features.dtype) for size in (height, width))
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy")).unsqueeze(0)
        there, here = taps(linear(grid, state, "position.transform"))
        offset = here - there if options["position"] == "relative" else torch.cat([here.expand_as(there), there], 1)
        compared = torch.cat([compared, offset.repeat(len(features), 1, 1, 1)], 1)

    statistics: dict[str, Tensor] = {}
    for number in range(options["mapping_layers"]):
        name = f"mapping.{3 * number}"
        mean, var = (state[f"{name}.running_{part}"].clone() for part in ("mean", "var"))
        compared = F.relu(
            F.batch_norm(compared, mean, var, state[f"{name}.weight"], state[f"{name}.bias"], training=True)
        )
        statistics |= {f"{name}.running_mean": mean, f"{name}.running_var": var}
        compared = linear(compared, state, f"mapping.{3 * number + 2}")

    values, _ = taps(value)
    weight = compared.softmax(2) if pairwise else compared.view(len(features), -1, *values.shape[2:])
    every_channel = weight.repeat(1, values.shape[1] // weight.shape[1], 1, 1)
    output = (values * every_channel).sum(2)
    stride = options.get("stride", 1)
    return output.unflatten(2, [-(-size // stride) for size in features.shape[2:]]), statistics


def linear(features: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    """A 1x1 convolution as the matrix that it is."""
    output = torch.einsum("oc,nchw->nohw", state[f"{name}.weight"][:, :, 0, 0], features)
    bias = state.get(f"{name}.bias")
    return output if bias is None else output + bias.view(-1, 1, 1)


def neighbours(features: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Every pixel's neighbours, (N, C, K*K, Ho*Wo), and the pixels themselves, (N, C, 1, Ho*Wo)."""
    kernel, stride, dilation = options["kernel_size"], options.get("stride", 1), options.get("dilation", 1)
    border = dilation * (kernel // 2)
    height, width = features.shape[2:]
    if options.get("padding_mode") == "zeros":
        padded = F.pad(features, (border,) * 4)
    else:
        rows, columns = (np.pad(np.arange(size), border, mode="reflect") for size in (height, width))
        padded = features[:, :, rows][:, :, :, columns]
    shifted = [
        padded[:, :, i : i + height : stride, j : j + width : stride].flatten(2)
        for i in range(0, dilation * kernel, dilation)
        for j in range(0, dilation * kernel, dilation)
    ]
    return torch.stack(shifted, 2), features[:, :, ::stride, ::stride].flatten(2).unsqueeze(2)
