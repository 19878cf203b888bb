r"""The stem in training: a linear layer of an image's few channels, a norm, a ReLU and 2x2 max-pooling, in closed form.

The layer's output t, the largest map of the network, is written in no pass. With the layer's weight w (C, c) and the
moments of the image, the statistics of t are those of a linear map:

    mean_t = w mean (+ bias),  variance_t = diag(w covariance w^T).

The forward and the backward pass take the weight with the norm's scale s = gamma * inverse_deviation multiplied in,
``weight = s w``, and ``shift = beta - s (mean_t - bias)``. With S0 and S (C, c) the sums that :func:`stem_backward`
returns, and P pixels, the gradients of the norm with batch statistics are

    d beta = S0,  d gamma = inverse_deviation * rowsum(w o S),
    d w = s (S - inverse_deviation * d gamma * w covariance),

since the mean of x - mean is 0; d w of a frozen norm is s (S + S0 mean^T), and d bias is s S0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import choose, devices_of
from .native import native_operator
from .pooled_projection import pooled_projection

MAX_CHANNELS = 8  # of an image, for the native kernels


def image_moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean and the biased covariance of an image's channels over all pixels.

    Args:
        image: (N, c, H, W).

    Returns:
        (c,) and (c, c), float64.

    Example:
        >>> mean, covariance = image_moments(torch.tensor([1.0, 3.0, 5.0, 9.0]).view(1, 2, 1, 2))
        >>> mean.tolist(), covariance.tolist()
        ([2.0, 7.0], [[1.0, 2.0], [2.0, 4.0]])
    """
    if _is_native(image):
        return native_image_moments(image)
    return image_moments_in_torch(image)


def image_moments_in_torch(image: Tensor) -> tuple[Tensor, Tensor]:
    """Compute :func:`image_moments` in plain torch."""
    planes = image.transpose(0, 1).flatten(1).double()
    mean = planes.mean(1)
    planes = planes - mean[:, None]
    return mean, planes @ planes.t() / planes.shape[1]


def stem_forward(image: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
    """Apply the layer, the norm, the ReLU and the pooling: ``max over 2x2 pixels of relu(weight x + shift)``.

    Args:
        image: x, (N, c, H, W); an odd last row or column is dropped.
        weight: (C, c), with the norm's scale multiplied in; float32, or float64 for an image in float64.
        shift: (C,), as ``weight``.

    Returns:
        (N, H // 2, W // 2, C), channels last, in the dtype of ``image``.

    Example:
        >>> stem_forward(torch.arange(4.0).view(1, 1, 2, 2), torch.tensor([[1.0], [-1.0]]), torch.zeros(2))
        tensor([[[[3., 0.]]]])
    """
    return pooled_projection(image, weight.t(), shift)


def stem_backward(grad_pooled: Tensor, image: Tensor, weight: Tensor, shift: Tensor, mean: Tensor) -> Tensor:
    """Sum over the pixels that the ReLU and the max-pooling of :func:`stem_forward` selected.

    Args:
        grad_pooled: The gradient of the output, (N, H // 2, W // 2, C).
        image: As for :func:`stem_forward`.
        weight: As for :func:`stem_forward`.
        shift: As for :func:`stem_forward`.
        mean: Of the image's channels, (c,), float64.

    Returns:
        (1 + c, C), float64: the sum of d, then for every channel j of the image the sum of d * (x_j - mean_j). d is the
        gradient at the norm's output: of every 2x2 pixels, that of the first maximum, if this is positive.

    Example:
        >>> image, weight = torch.arange(4.0).view(1, 1, 2, 2), torch.tensor([[1.0], [-1.0]])
        >>> stem_backward(torch.ones(1, 1, 1, 2), image, weight, torch.zeros(2), torch.ones(1).double())
        tensor([[1., 0.],
                [2., 0.]], dtype=torch.float64)
    """
    if _is_native(image):
        return native_stem_backward(grad_pooled, image, weight.t(), shift, mean)
    return stem_backward_in_torch(grad_pooled, image, weight, shift, mean)


def stem_backward_in_torch(grad_pooled: Tensor, image: Tensor, weight: Tensor, shift: Tensor, mean: Tensor) -> Tensor:
    """Compute :func:`stem_backward` in plain torch."""
    grad = _grad_of_norm(grad_pooled, image, weight, shift)
    grad = grad.transpose(0, 1).flatten(1).double()
    planes = image.transpose(0, 1).flatten(1) - mean[:, None]
    return torch.cat([grad.sum(1)[None], planes @ grad.t()])


def stem_input_gradient(
    grad_pooled: Tensor,
    image: Tensor,
    weight: Tensor,
    shift: Tensor,
    mean: Tensor | None = None,
    matrix: Tensor | None = None,
    offset: Tensor | None = None,
) -> Tensor:
    r"""Compute the gradient of the image, ``weight^T d + matrix (x - mean) + offset``.

    The last two terms are those of batch statistics: with the layer's own weight w, s and P as in the description of
    the module, ``matrix = -w^T diag(s * inverse_deviation * d gamma / P) w`` and ``offset = -w^T (s * d beta / P)``.

    Args:
        grad_pooled: As for :func:`stem_backward`.
        image: As for :func:`stem_forward`.
        weight: As for :func:`stem_forward`.
        shift: As for :func:`stem_forward`.
        mean: As for :func:`stem_backward`. Defaults to None, as the next two, for a frozen norm.
        matrix: (c, c), float64.
        offset: (c,), float64.

    Returns:
        (N, c, H, W), of the dtype of ``image``.

    Example:
        >>> image, weight = torch.arange(4.0).view(1, 1, 2, 2), torch.tensor([[1.0], [-1.0]])
        >>> stem_input_gradient(torch.ones(1, 1, 1, 2), image, weight, torch.zeros(2)).flatten()
        tensor([0., 0., 0., 1.])
    """
    grad = _grad_of_norm(grad_pooled, image, weight, shift).double()
    result = F.conv2d(grad, weight.t().double()[:, :, None, None])
    if mean is not None and matrix is not None and offset is not None:
        centered = image - mean[:, None, None]
        result += F.conv2d(centered, matrix[:, :, None, None], offset)
    return result.to(image.dtype)


def _grad_of_norm(grad_pooled: Tensor, image: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
    """The gradient at the norm's output, (N, C, H, W), in the dtype of the weight."""
    output = F.conv2d(image.to(weight.dtype), weight[:, :, None, None], shift)
    pooled, winner = F.max_pool2d(output, 2, return_indices=True)
    grad = grad_pooled.permute(0, 3, 1, 2).to(weight.dtype).masked_fill(pooled <= 0, 0)
    sparse = torch.zeros_like(output).flatten(2).scatter_(2, winner.flatten(2), grad.flatten(2))
    return sparse.view(output.shape)


def _is_native(image: Tensor) -> bool:
    is_supported = image.device.type in _native_devices and image.shape[1] <= MAX_CHANNELS
    return is_supported and choose(image.device) == "native"


def _fake_image_moments(image: Tensor) -> tuple[Tensor, Tensor]:
    channels = image.shape[1]
    mean = image.new_empty(channels, dtype=torch.float64)
    return mean, mean.new_empty(channels, channels)


def _fake_stem_backward(image: Tensor, shift: Tensor) -> Tensor:
    return image.new_empty(1 + image.shape[1], shift.shape[0], dtype=torch.float64)


native_image_moments = native_operator("image_moments", _fake_image_moments)
native_stem_backward = native_operator("stem_backward", _fake_stem_backward)
_native_devices = devices_of("image_moments")
