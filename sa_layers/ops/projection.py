"""A linear layer of every pixel of a channels-last map, fused with frozen norms where it is bound by memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
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
    """One or more linear layers of the same C channels for :func:`project`, made by :meth:`of_layers`."""

    weights: Sequence[Tensor]
    """(D, C), or (D, C, 1, 1) as modules hold them, for each layer."""
    biases: Sequence[Tensor | None]
    """(D,) or None for each."""
    channels: int
    """The sum of all D."""
    kernel: str
    """What computes the layers:

    - 'panels': one kernel for the prologue, the pooling, the layers and the epilogue;
    - 'prologue': one kernel for the prologue and the layers if it supports the sizes, otherwise like 'product';
    - 'product': torch's matrix product, with native kernels for prologue, pooling and epilogue;
    - 'torch': plain torch.
    """

    @classmethod
    def of_layers(cls, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Linear:
        """Choose the kernel for the device and dtype of the weights.

        Args:
            weights: (D, C) or (D, C, 1, 1) each.
            biases: (D,) or None for each.

        Example:
            >>> Linear.of_layers([torch.ones(3, 40), torch.ones(5, 40)], [None, None]).channels
            8
        """
        return cls(weights, biases, sum(weight.shape[0] for weight in weights), _choose_kernel(weights[0]))

    def new_map(self, features: Tensor) -> Tensor:
        """Allocate the output: (N, H, W, C) -> (N, H, W, D), with more channels if panels are padded."""
        padding = -self.channels % PANEL if self.kernel == "panels" else 0
        return features.new_empty(*features.shape[:3], self.channels + padding)

    def bias(self) -> list[Tensor]:
        """The biases, with zeros for those that are missing."""
        if not any(bias is None for bias in self.biases):
            return list(self.biases)  # type: ignore[arg-type]
        pairs = zip(self.weights, self.biases, strict=True)
        return [weight.new_zeros(len(weight)) if bias is None else bias for weight, bias in pairs]


def join(linears: Sequence[Linear]) -> list[Linear]:
    """Linear layers of equally many channels, each with one weight and one bias, by one copy of all of them.

    For torch's matrix product. The kernel 'panels' reads several weights, so its layers are returned as they are.

    Example:
        >>> both = Linear.of_layers([torch.ones(3, 4).double(), torch.ones(5, 4).double()], [None, None])
        >>> [tuple(weight.shape) for weight in join([both])[0].weights]
        [(8, 4)]
    """
    if linears[0].kernel == "panels" or all(len(linear.weights) == 1 for linear in linears):
        return list(linears)
    sizes = [linear.channels for linear in linears]
    weights = torch.cat([weight.flatten(1) for linear in linears for weight in linear.weights]).split(sizes)
    biases = torch.cat([bias for linear in linears for bias in linear.bias()]).split(sizes)
    return [
        Linear([weight], [bias], linear.channels, linear.kernel)
        for linear, weight, bias in zip(linears, weights, biases, strict=True)
    ]


def _choose_kernel(weight: Tensor) -> str:
    device = weight.device
    if decide(device) != "native":
        return "torch"
    if torch.compiler.is_compiling():
        return "product"
    if device.type == "cpu" and weight.dtype == torch.float32:
        return "panels"
    half = weight.dtype in (torch.float16, torch.bfloat16)
    return "prologue" if half and device.type in _prologue_devices and weight.shape[1] <= CUDA_CHANNELS else "product"


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

    .. math:: z_d = b_d + \textstyle\sum_c w_{dc} \max(s_c x_c + t_c, 0), \qquad y_d = \max(s'_d z_d + t'_d, 0)

    Args:
        features: x, (N, H, W, C), contiguous: channels last.
        linear: w and b, of which several layers follow each other in the channels of y.
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
        >>> linear, out = Linear.of_layers([identity], [torch.ones(2)]), torch.ones(1, 1, 1, 2)
        >>> project(torch.ones(1, 1, 1, 2), linear, out, prologue=AffineReLU(two, two))
        >>> out
        tensor([[[[5., 5.]]]])
        >>> project(out, Linear.of_layers([-identity], [None]), out, accumulate=True)
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
    else:
        bias = [] if accumulate else linear.bias()
        if out.shape[3] % PANEL == 0:
            _native_projection(features, linear.weights, bias, *(prologue or NONE), *(epilogue or NONE), out, pool)
            return
        whole = linear.new_map(out).zero_()
        _native_projection(features, linear.weights, bias, *(prologue or NONE), *NONE, whole, pool)
        result = whole[..., : linear.channels]
        out.copy_(out + result if accumulate else result)
    if epilogue is not None:
        if native and out.is_contiguous():
            native_affine_relu_(out, *epilogue)
        else:
            out.copy_(affine_relu_in_torch(out, *epilogue))


def _multiply(features: Tensor, linear: Linear, out: Tensor, accumulate: bool, prologue: AffineReLU | None) -> None:
    """Compute the prologue and the layers by torch's matrix product, or by one CUDA kernel if it supports the sizes."""
    (joined,) = join([linear])
    weight, bias = joined.weights[0].flatten(1).t(), None if accumulate else joined.bias()[0]
    if linear.kernel == "prologue" and prologue is not None and bias is not None:
        weight = weight.contiguous()
        if _normed_projection(features, weight, bias, *prologue, out):
            return
    if prologue is not None:
        features = (affine_relu_in_torch if linear.kernel == "torch" else native_affine_relu)(features, *prologue)
    result = out.flatten(0, 2)
    if bias is None:
        result.addmm_(features.flatten(0, 2), weight)
    else:
        torch.addmm(bias, features.flatten(0, 2), weight, out=result)


_native_projection = native_operator("projection", lambda: None)
_normed_projection = native_operator("normed_projection", lambda: True)
_prologue_devices = devices_of("normed_projection")
