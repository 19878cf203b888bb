"""CARAFE: upsampling by reassembly kernels that are predicted from the content."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..ops.checks import check_tensors
from .reassembly import reassemble
from .sizes import divisor, odd, positive


class CARAFE(nn.Module):
    r"""Reassembly of the neighbourhood of every pixel into r x r pixels, by given weights.

    .. math:: y_{c,\, r i + s} = \sum_{j \in R(i)} w_{g(c),\, r i + s,\, j - i} \; x_{c,j}

    Equation 3 of "CARAFE: Content-Aware ReAssembly of FEatures" (https://arxiv.org/abs/1905.02188), with the arguments
    of mmcv's ``CARAFE``. It has no parameters.

    Args:
        up_kernel: K, the size of the neighbourhood, odd. Beyond the border are zeros.
        up_group: G, the number of groups of channels; each is reassembled by weights of its own.
        scale_factor: r, by which the map is enlarged.

    Shapes:
        features (N, C, H, W) and masks (N, G * K * K, r * H, r * W) -> (N, C, r * H, r * W). The masks are used as they
        are; those of :class:`CARAFEPack` sum to 1 over the K * K taps.

    Example:
        >>> import torch
        >>> masks = torch.full((1, 25, 16, 16), 1 / 25)
        >>> CARAFE(up_kernel=5, up_group=1, scale_factor=2)(torch.randn(1, 64, 8, 8), masks).shape
        torch.Size([1, 64, 16, 16])
    """

    def __init__(self, up_kernel: int, up_group: int, scale_factor: int) -> None:
        super().__init__()
        self.up_kernel = odd(up_kernel, "up_kernel")
        self.up_group = positive(up_group, "up_group")
        self.scale_factor = positive(scale_factor, "scale_factor")

    def forward(self, features: Tensor, masks: Tensor) -> Tensor:
        """Upsample ``features`` by ``masks``."""
        check_tensors(features=features, masks=masks)
        expected = (
            features.shape[0],
            self.up_group * self.up_kernel**2,
            *(self.scale_factor * side for side in features.shape[2:]),
        )
        if tuple(masks.shape) != expected:
            raise ValueError(
                f"masks must have the shape {expected} for features {tuple(features.shape)}, got {tuple(masks.shape)}"
            )
        # as pixel_unshuffle does, which returns another shape if there is no image
        factor, (height, width) = self.scale_factor, features.shape[2:]
        kernels = masks.unflatten(-1, (width, factor)).unflatten(2, (height, factor)).permute(0, 1, 3, 5, 2, 4)
        kernels = kernels.flatten(1, 3)
        return reassemble(features, kernels, self.up_kernel, self.up_group, self.scale_factor, normalise=False)

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        return f"up_kernel={self.up_kernel}, up_group={self.up_group}, scale_factor={self.scale_factor}"


class CARAFEPack(nn.Module):
    """An upsampling layer that predicts reassembly kernels from the features, and reassembles the features by them.

    A 1x1 convolution compresses the channels, a convolution encodes the content into a kernel for each of the r x r
    pixels that a pixel becomes, a softmax normalises the kernels, and :class:`CARAFE` applies them. The arguments, the
    names of the parameters and their initial values are those of mmcv's ``CARAFEPack``, so its checkpoints load.

    Args:
        channels: C, the channels of the features.
        scale_factor: r, by which the map is enlarged.
        up_kernel: K, the size of the neighbourhood, odd. Defaults to 5.
        up_group: G, the number of groups of channels, a divisor of ``channels``. Defaults to 1.
        encoder_kernel: Kernel size of the content encoder, odd. Defaults to 3.
        encoder_dilation: Dilation of the content encoder. Defaults to 1.
        compressed_channels: Channels that the content encoder reads. Defaults to 64.

    Shapes:
        (N, C, H, W) -> (N, C, r * H, r * W)

    Example:
        >>> import torch
        >>> CARAFEPack(256, scale_factor=2)(torch.randn(1, 256, 8, 8)).shape
        torch.Size([1, 256, 16, 16])
    """

    def __init__(
        self,
        channels: int,
        scale_factor: int,
        up_kernel: int = 5,
        up_group: int = 1,
        encoder_kernel: int = 3,
        encoder_dilation: int = 1,
        compressed_channels: int = 64,
    ) -> None:
        super().__init__()
        self.channels = positive(channels, "channels")
        self.scale_factor = positive(scale_factor, "scale_factor")
        self.up_kernel = odd(up_kernel, "up_kernel")
        self.up_group = divisor(up_group, "up_group", channels, "channels")
        self.encoder_kernel = odd(encoder_kernel, "encoder_kernel")
        self.encoder_dilation = positive(encoder_dilation, "encoder_dilation")
        self.compressed_channels = positive(compressed_channels, "compressed_channels")
        self.channel_compressor = nn.Conv2d(channels, compressed_channels, 1)
        self.content_encoder = nn.Conv2d(
            compressed_channels,
            up_group * up_kernel**2 * scale_factor**2,
            encoder_kernel,
            padding=encoder_dilation * (encoder_kernel - 1) // 2,
            dilation=encoder_dilation,
        )
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise as the authors do; at first all kernels are nearly equal."""
        nn.init.xavier_uniform_(self.channel_compressor.weight)
        nn.init.normal_(self.content_encoder.weight, std=0.001)
        for layer in (self.channel_compressor, self.content_encoder):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Upsample the features."""
        return upsample(self, features)

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        return f"scale_factor={self.scale_factor}, up_kernel={self.up_kernel}, up_group={self.up_group}"


def upsample(layer: Any, features: Tensor) -> Tensor:
    """Compute the forward pass of a :class:`CARAFEPack`, this one or mmcv's, from its attributes."""
    logits = layer.content_encoder(layer.channel_compressor(features))
    return reassemble(features, logits, layer.up_kernel, layer.up_group, layer.scale_factor, normalise=True)
