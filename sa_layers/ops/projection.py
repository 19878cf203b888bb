"""A linear layer of every pixel with the frozen norms around it, channels last: in one pass where memory bounds it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .affine_relu import affine_relu, affine_relu_
from .backend import choose, devices_of
from .max_pooling import max_pooling
from .native import native_gradient
from .pairwise_attention import Epilogue

PANEL = 16  # output channels that the kernel computes at once
NONE = (None, None)
CUDA_CHANNELS = 256  # of features: beyond, the layer is bound by its products


class Linear(NamedTuple):
    """A linear layer from C to D channels as :func:`project` takes it: made by :func:`pack`."""

    weight: Tensor
    """(C, D), or for the native kernel (panels, C, 16): columns in panels, zeros behind the last."""
    bias: Tensor
    """(D,) or (panels * 16,)."""
    channels: int
    """D."""

    def new_map(self, features: Tensor) -> Tensor:
        """An empty map for the layer's result: (N, H, W, C) -> (N, H, W, D), or more channels for whole panels."""
        return features.new_empty(*features.shape[:3], self.bias.shape[0])


def pack(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """Arranges a layer's parameters for the device and the dtype that they have.

    Args:
        weight: (C, D).
        bias: (D,). Defaults to None, for zeros.

    Example:
        >>> pack(torch.ones(3, 40, dtype=torch.float64)).weight.shape
        torch.Size([3, 40])
    """
    channels = weight.shape[1]
    bias = weight.new_zeros(channels) if bias is None else bias
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or torch.compiler.is_compiling():
        return Linear(weight.contiguous(), bias, channels)
    padding = (0, -channels % PANEL)
    panels = F.pad(weight, padding).unflatten(1, (-1, PANEL)).transpose(0, 1)
    return Linear(panels.contiguous(), F.pad(bias, padding), channels)


def project(
    features: Tensor,
    linear: Linear,
    to: Tensor,
    *,
    adds: bool = False,
    before: Epilogue | None = None,
    after: Epilogue | None = None,
    pools: bool = False,
) -> None:
    r"""A linear layer of every pixel into a map that is there. Not differentiable.

    .. math:: z_d = b_d + \textstyle\sum_c \max(s_c x_c + t_c, 0) \, w_{cd}, \qquad y_d = \max(s'_d z_d + t'_d, 0)

    Args:
        features: x, (N, H, W, C), contiguous: channels last.
        linear: w and b.
        to: y, (N, H, W, D), contiguous, or a whole :meth:`Linear.new_map`, in which what follows the first D channels
            is without meaning.
        adds: Whether the layer is added to what ``to`` holds, which takes the place of b. Defaults to False.
        before: s and t, (C,), a frozen norm that is followed by a ReLU; float32, or float64 for features in float64.
            Defaults to None, for neither.
        after: s' and t', (D,), likewise.
        pools: Whether x is not ``features`` but the maximum of every 2x2 pixels of them; an odd last row or column is
            dropped. A norm comes before the pooling. Defaults to False.

    Example:
        >>> two, identity = torch.full((2,), 2.0), torch.eye(2)
        >>> to = torch.ones(1, 1, 1, 2)
        >>> project(torch.ones(1, 1, 1, 2), pack(identity, torch.ones(2)), to, before=Epilogue(two, two))
        >>> to
        tensor([[[[5., 5.]]]])
        >>> project(to, pack(-identity), to, adds=True)
        >>> to
        tensor([[[[0., 0.]]]])
    """
    if pools and (linear.weight.dim() == 2 or before is not None):
        features, before, pools = max_pooling(features, *(before or NONE)), None, False
    if linear.weight.dim() == 2:
        if adds or before is None or not _project_normed(features, linear, before, to):
            pixels, result = features if before is None else affine_relu(features, *before), to.flatten(0, 2)
            if adds:
                result.addmm_(pixels.flatten(0, 2), linear.weight)
            else:
                torch.addmm(linear.bias, pixels.flatten(0, 2), linear.weight, out=result)
    else:
        bias = None if adds else linear.bias
        if to.shape[3] == linear.bias.shape[0]:
            _native_projection(features, linear.weight, bias, *(before or NONE), *(after or NONE), to, pools)
            return
        whole = linear.new_map(to).zero_()
        _native_projection(features, linear.weight, bias, *(before or NONE), *NONE, whole, pools)
        result = whole[..., : linear.channels]
        to.copy_(to + result if adds else result)
    if after is not None:
        affine_relu_(to, *after)


def _project_normed(features: Tensor, linear: Linear, before: Epilogue, to: Tensor) -> bool:
    """The norm and the layer in one CUDA kernel; False where there is none for them."""
    if torch.compiler.is_compiling() or features.device.type not in _normed_devices:
        return False
    if features.shape[3] > CUDA_CHANNELS or features.dtype not in (torch.float16, torch.bfloat16):
        return False
    return choose(features.device) == "native" and _normed_projection(features, *linear[:2], *before, to)


_native_projection = native_gradient("projection", lambda *_: None)
_normed_projection = native_gradient("normed_projection", lambda *_: True)
_normed_devices = devices_of("normed_projection")
