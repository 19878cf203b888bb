"""Convex upsampling of RAFT: every pixel of the larger map is a weighted average of K x K coarse pixels."""

from __future__ import annotations

from torch import Tensor, nn

from .reassembly import reassemble
from .sizes import odd, positive


class ConvexUpsampling(nn.Module):
    r"""Upsampling of a flow, or of any map, by convex combinations of neighbouring pixels.

    .. math:: y_{c,\, r i + s} = r \sum_{j \in R(i)} \operatorname{softmax}_j(m_{s,\, j - i}) \; x_{c,j}

    Section 3.3 of "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow" (https://arxiv.org/abs/2003.12039), the
    method ``upsample_flow`` of its code. It has no parameters: the mask m comes from RAFT's update block. Beyond the
    border is zero flow.

    Args:
        factor: r, by which the map is enlarged. Defaults to 8.
        kernel_size: K, the size of the neighbourhood, odd. Defaults to 3.
        scale: The factor of the values. Defaults to None, for ``factor``, since a flow is measured in pixels, which
            become smaller; use 1 for other maps.

    Shapes:
        flow (N, C, H, W) and mask (N, K * K * r * r, H, W) -> (N, C, r * H, r * W)

    Example:
        >>> import torch
        >>> upsampling = ConvexUpsampling()
        >>> upsampling(torch.randn(1, 2, 16, 20), torch.randn(1, 576, 16, 20)).shape
        torch.Size([1, 2, 128, 160])
    """

    def __init__(self, factor: int = 8, kernel_size: int = 3, scale: float | None = None) -> None:
        super().__init__()
        self.factor = positive(factor, "factor")
        self.kernel_size = odd(kernel_size, "kernel_size")
        self.scale = float(factor if scale is None else scale)

    def forward(self, flow: Tensor, mask: Tensor) -> Tensor:
        """Upsample ``flow`` by the logits ``mask``."""
        return reassemble(self.scale * flow, mask, self.kernel_size, 1, self.factor, normalise=True)

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        return f"factor={self.factor}, kernel_size={self.kernel_size}, scale={self.scale}"
