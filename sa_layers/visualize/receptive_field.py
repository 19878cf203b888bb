"""Effective receptive fields: the influence of each image pixel on a feature."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..models.self_attention_stage import SelfAttentionStage
from .geometry import check_pixel, image_stride
from .inspection import attention_layers, check_image, compute_features, forward_hooks, in_evaluation_mode

Array = NDArray[np.float32]


def effective_receptive_field(
    model: nn.Module, images: Tensor, pixel: tuple[int, int] | None = None
) -> dict[str, Array]:
    r"""Compute the gradient of the features at a pixel with respect to the image, for every stage of a model.

    .. math:: r_j = \frac{1}{N} \sum_n \sum_{colour} \left| \frac{\partial \sum_c y_{n, c, i}}{\partial x_{n, j}}
        \right|

    Source: "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks" (Luo et al., NIPS 2016).
    The average over several images gives a smoother field.

    Args:
        model: Model, as for :func:`attention_weights`. If it has no SAN stages, fields of its attention layers are
            computed.
        images: Normalised images, (N, C, H, W) or (C, H, W).
        pixel: Pixel (x, y) of the image at which the feature lies. Defaults to the centre.

    Returns:
        The receptive field of each stage by name, (H, W), float32, with sum 1.

    Raises:
        VisualizationError: If the model has no attention layers, or ``images`` or ``pixel`` is invalid.

    Example:
        >>> from sa_layers.models import SelfAttentionNetwork
        >>> fields = effective_receptive_field(SelfAttentionNetwork(depth=10), torch.randn(2, 3, 64, 64))
        >>> list(fields), fields['stages.4'].shape
        (['stages.0', 'stages.1', 'stages.2', 'stages.3', 'stages.4'], (64, 64))
    """
    layers = attention_layers(model)
    stages = {name: module for name, module in model.named_modules() if isinstance(module, SelfAttentionStage)}
    images = check_image(images).detach().clone().requires_grad_()
    height, width = images.shape[-2:]
    x, y = check_pixel((width // 2, height // 2) if pixel is None else pixel, (height, width))
    outputs: dict[str, Tensor] = {}
    hooked: dict[str, nn.Module] = {**stages} or {**layers}
    with (
        in_evaluation_mode(model),
        torch.enable_grad(),
        forward_hooks(hooked, lambda name, _, output: outputs.update({name: output})),
    ):
        compute_features(model, images)
    fields = {}
    for name, output in outputs.items():
        rows, columns = output.shape[-2:]
        stride = image_stride((height, width), (rows, columns))
        row, column = min(y // stride, rows - 1), min(x // stride, columns - 1)
        (gradient,) = torch.autograd.grad(output[..., row, column].sum(), images, retain_graph=True)
        field = gradient.abs().sum(1).mean(0).double()
        fields[name] = (field / field.sum().clamp_min(torch.finfo(torch.float64).tiny)).float().cpu().numpy()
    return fields
