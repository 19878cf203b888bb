"""Involution: a kernel for every pixel, computed from this pixel alone."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from ..ops import aggregation
from ..ops.checks import check_map
from .sizes import divisor, odd, positive


class Involution2d(nn.Module):
    r"""A convolution with inverted properties: the kernel differs between pixels, and the channels of a group share it.

    .. math:: y_{c,i} = \sum_{j \in R(i)} \bigl(W_1\, \sigma(W_0\, x_i)\bigr)_{g(c),\, j - i} \; x_{c,j}

    Equations 4 and 6 of "Involution: Inverting the Inherence of Convolution for Visual Recognition"
    (https://arxiv.org/abs/2103.06255), with the arguments and the names of the parameters of the authors' module, so
    that their checkpoints load. W_0 is followed by a batch norm and a ReLU. Beyond the border are zeros.

    Args:
        channels: C, of the input and of the output.
        kernel_size: K, odd.
        stride: Pixels between footprints; kernels are computed from the average of as many pixels. Defaults to 1.
        dilation: Pixels between taps. Defaults to 1.
        group_channels: The number of neighbouring channels that share a kernel. Defaults to 16.
        reduction_ratio: W_0 reduces the channels by this factor. Defaults to 4.

    Shapes:
        (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))

    Example:
        >>> import torch
        >>> Involution2d(64, kernel_size=7, stride=2)(torch.randn(1, 64, 14, 14)).shape
        torch.Size([1, 64, 7, 7])
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        *,
        group_channels: int = 16,
        reduction_ratio: int = 4,
    ) -> None:
        super().__init__()
        self.channels = positive(channels, "channels")
        self.kernel_size = odd(kernel_size, "kernel_size")
        self.stride = positive(stride, "stride")
        self.dilation = positive(dilation, "dilation")
        self.group_channels = divisor(group_channels, "group_channels", channels, "channels")
        self.groups = channels // group_channels
        hidden = channels // divisor(reduction_ratio, "reduction_ratio", channels, "channels")
        # the names are those of mmcv's ConvModule, of which the authors' module is made
        reduce = nn.Conv2d(channels, hidden, 1, bias=False)
        span = nn.Conv2d(hidden, kernel_size**2 * self.groups, 1)
        self.conv1 = nn.Sequential(OrderedDict(conv=reduce, bn=nn.BatchNorm2d(hidden), activate=nn.ReLU(inplace=True)))
        self.conv2 = nn.Sequential(OrderedDict(conv=span))
        # ceil_mode, for maps whose size is not a multiple of the stride; the authors' module refuses them
        self.avgpool = nn.AvgPool2d(stride, stride, ceil_mode=True) if stride > 1 else nn.Identity()
        for layer in (reduce, span):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.init.constant_(span.bias, 0)  # type: ignore[arg-type]

    def weights(self, features: Tensor) -> Tensor:
        """The kernel of every pixel, by which the pixels of its footprint are multiplied.

        Args:
            features: (N, C, H, W), the input of the layer.

        Returns:
            (N, C / group_channels, K * K, Ho, Wo); taps are numbered row by row.
        """
        return self.conv2(self.conv1(self.avgpool(features))).unflatten(1, (self.groups, self.kernel_size**2))

    def forward(self, features: Tensor) -> Tensor:
        """Compute the kernels, and the aggregation by them."""
        check_map(features, "features")
        if features.shape[1] != self.channels:
            raise ValueError(f"features must have {self.channels} channels, got {features.shape[1]}")
        weight = self.weights(features).flatten(3)
        return aggregation(features, weight, self.kernel_size, self.stride, self.dilation, "zeros", "contiguous")

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        parts = f"{self.channels}, kernel_size={self.kernel_size}, stride={self.stride}, dilation={self.dilation}"
        return f"{parts}, group_channels={self.group_channels}"
