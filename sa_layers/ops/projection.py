"""A linear layer of every pixel of a channels-last map, fused with frozen norms where it is bound by memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .affine_relu import (
    AffineReLU,
    affine_relu_in_torch,
    native_affine_relu,
    native_affine_relu_,
)
from .backend import decide, devices_of
from .max_pooling import max_pooling_unfused, native_max_pooling
from .max_pooling import native_devices as pooling_devices
from .native import native_operator

PANEL = 16  # output channels that the CPU kernel computes together
NONE = (None, None)
CUDA_CHANNELS = 256  # of the input: wider layers are bound by arithmetic, for which torch's kernel is faster


class Linear(NamedTuple):
    """A linear layer from C to D channels for :func:`project`, made by :func:`pack`."""

    weight: Tensor
    """(C, D); for the kernel 'panels' (panels, C, 16), with the last panel padded with zeros."""
    bias: Tensor
    """(D,) or (panels * 16,)."""
    channels: int
    """D."""
    kernel: str
    """What computes the layer, chosen by :func:`pack`:

    - 'panels': one kernel for the prologue, the pooling, the layer and the epilogue;
    - 'prologue': one kernel for the prologue and the layer if it supports the sizes, otherwise like 'product';
    - 'product': torch's matrix product, with native kernels for prologue, pooling and epilogue;
    - 'torch': plain torch.
    """

    def new_map(self, features: Tensor) -> Tensor:
        """Allocate the output: (N, H, W, C) -> (N, H, W, D), with more channels if panels are padded."""
        return features.new_empty(*features.shape[:3], self.bias.shape[0])


def pack(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """Pack the parameters of a linear layer for their device and dtype, and choose its kernel.

    Args:
        weight: (C, D).
        bias: (D,), or None (default) for zeros.

    Example:
        >>> pack(torch.ones(3, 40, dtype=torch.float64)).weight.shape
        torch.Size([3, 40])
    """
    channels = weight.shape[1]
    bias = weight.new_zeros(channels) if bias is None else bias
    kernel = _choose_kernel(weight)
    if kernel != "panels":
        return Linear(weight.contiguous(), bias, channels, kernel)
    padding = (0, -channels % PANEL)
    panels = F.pad(weight, padding).unflatten(1, (-1, PANEL)).transpose(0, 1)
    return Linear(panels.contiguous(), F.pad(bias, padding), channels, kernel)


def _choose_kernel(weight: Tensor) -> str:
    device = weight.device
    if decide(device) != "native":
        return "torch"
    if torch.compiler.is_compiling():
        return "product"
    if device.type == "cpu" and weight.dtype == torch.float32:
        return "panels"
    half = weight.dtype in (torch.float16, torch.bfloat16)
    return "prologue" if half and device.type in _prologue_devices and weight.shape[0] <= CUDA_CHANNELS else "product"


def project(
    features: Tensor,
    linear: Linear,
    out: Tensor,
    *,
    accumulate: bool = False,
    prologue: AffineReLU | None = None,
    epilogue: AffineReLU | None = None,
    pool: bool = False,
) -> None:
    r"""Compute a linear layer of every pixel into an existing map. Not differentiable.

    .. math:: z_d = b_d + \textstyle\sum_c \max(s_c x_c + t_c, 0) \, w_{cd}, \qquad y_d = \max(s'_d z_d + t'_d, 0)

    Args:
        features: x, (N, H, W, C), contiguous: channels last.
        linear: w and b.
        out: y, (N, H, W, D), contiguous; or a whole :meth:`Linear.new_map`, whose channels after the first D are then
            undefined.
        accumulate: Whether to add the layer, without b, to ``out`` instead of overwriting it. Defaults to False.
        prologue: s and t, (C,), a frozen norm before the layer, with its ReLU; float32, or float64 for float64
            features. Defaults to None, for no norm.
        epilogue: s' and t', (D,), the same after the layer.
        pool: Whether x is the maximum of every 2x2 pixels of ``features``, after the prologue; an odd last row or
            column is dropped. Defaults to False.

    Example:
        >>> two, identity = torch.full((2,), 2.0), torch.eye(2)
        >>> out = torch.ones(1, 1, 1, 2)
        >>> project(torch.ones(1, 1, 1, 2), pack(identity, torch.ones(2)), out, prologue=AffineReLU(two, two))
        >>> out
        tensor([[[[5., 5.]]]])
        >>> project(out, pack(-identity), out, accumulate=True)
        >>> out
        tensor([[[[0., 0.]]]])
    """
    native, packed = linear.kernel != "torch", linear.kernel == "panels"
    if pool and (not packed or prologue is not None):
        has_kernel = native and features.device.type in pooling_devices
        pooling = native_max_pooling if has_kernel else max_pooling_unfused
        features, prologue, pool = pooling(features, *(prologue or NONE)), None, False
    if not packed:
        _multiply(features, linear, out, accumulate, prologue)
    elif out.shape[3] == linear.bias.shape[0]:
        bias = None if accumulate else linear.bias
        _native_projection(features, linear.weight, bias, *(prologue or NONE), *(epilogue or NONE), out, pool)
        return
    else:
        whole = linear.new_map(out).zero_()
        bias = None if accumulate else linear.bias
        _native_projection(features, linear.weight, bias, *(prologue or NONE), *NONE, whole, pool)
        result = whole[..., : linear.channels]
        out.copy_(out + result if accumulate else result)
    if epilogue is not None:
        if native and out.is_contiguous():
            native_affine_relu_(out, *epilogue)
        else:
            out.copy_(affine_relu_in_torch(out, *epilogue))


def _multiply(features: Tensor, linear: Linear, out: Tensor, accumulate: bool, prologue: AffineReLU | None) -> None:
    """Compute the prologue and the layer by torch's matrix product, or by one CUDA kernel if it supports the sizes."""
    one_kernel = linear.kernel == "prologue" and prologue is not None and not accumulate
    if one_kernel and _normed_projection(features, linear.weight, linear.bias, *(prologue or NONE), out):
        return
    if prologue is not None:
        features = (affine_relu_in_torch if linear.kernel == "torch" else native_affine_relu)(features, *prologue)
    result = out.flatten(0, 2)
    if accumulate:
        result.addmm_(features.flatten(0, 2), linear.weight)
    else:
        torch.addmm(linear.bias, features.flatten(0, 2), linear.weight, out=result)


_native_projection = native_operator("projection", lambda: None)
_normed_projection = native_operator("normed_projection", lambda: True)
_prologue_devices = devices_of("normed_projection")
