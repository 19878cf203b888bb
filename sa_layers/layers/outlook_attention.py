"""Outlook attention of VOLO: every pixel computes the attention of all pairs of its neighbours."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops import aggregation
from .sizes import divisor, odd, positive
from .windows import Windows, add_windows


class OutlookAttention(nn.Module):
    r"""Attention between the pixels of a window, with weights from a linear layer of the pixel at its centre.

    .. math::
        \hat y_{i,\Delta} = \sum_{k} \operatorname{softmax}_k(A_{i,\Delta,k}) \; v_{i+k}, \qquad
        y_p = \sum_{\Delta} \hat y_{p-\Delta,\Delta}

    Equations 3 to 5 of "VOLO: Vision Outlooker for Visual Recognition" (https://arxiv.org/abs/2106.13112). Δ and k are
    the K x K offsets of a window, and i its centre, every ``stride``-th pixel. The arguments and the names of the
    parameters are those of the authors' module and of timm's, so that their checkpoints load.

    The order of the two sums is exchanged, so that neither the unfolded values nor the sums of every window are stored:
    a pixel p reads the (2K - 1) x (2K - 1) pixels p + k - Δ, each with the sum of the weights of all windows that
    contain both pixels.

    Args:
        dim: C, the channels of input and output.
        num_heads: The number of heads, a divisor of ``dim``.
        kernel_size: K, odd. Defaults to 3.
        padding: None (default) or ``(kernel_size - 1) / 2``, the only padding that is supported.
        stride: Pixels between the centres of windows; the weights are computed from the average of as many pixels.
            Defaults to 1.
        qkv_bias: Whether the values have a bias. Defaults to False.
        qk_scale: The factor of the logits. Defaults to None, for ``(dim / num_heads) ** -0.5``.
        attn_drop: Dropout of the weights. Defaults to 0.
        proj_drop: Dropout of the output. Defaults to 0.

    Shapes:
        (N, H, W, C) -> (N, H, W, C)

    Example:
        >>> import torch
        >>> OutlookAttention(192, num_heads=6, stride=2)(torch.randn(1, 28, 28, 192)).shape
        torch.Size([1, 28, 28, 192])
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        kernel_size: int = 3,
        padding: int | None = None,
        stride: int = 1,
        qkv_bias: bool = False,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = divisor(num_heads, "num_heads", positive(dim, "dim"), "dim")
        self.kernel_size = odd(kernel_size, "kernel_size")
        self.padding = (kernel_size - 1) // 2
        if padding not in (None, self.padding):
            raise ValueError(f"padding must be None or {self.padding}, which keeps the size, got {padding!r}")
        self.stride = positive(stride, "stride")
        self.scale = (dim // num_heads) ** -0.5 if qk_scale is None else qk_scale
        self.v = nn.Linear(dim, dim, bias=qkv_bias)
        self.attn = nn.Linear(dim, kernel_size**4 * num_heads)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        self.pool = nn.AvgPool2d(stride, stride, ceil_mode=True) if stride > 1 else nn.Identity()

    def attend(self, value: Tensor, logits: Tensor) -> Tensor:
        """Attend in the windows, without the linear layers.

        Args:
            value: v, (N, C, H, W).
            logits: A, (N, h, w, heads * K**4) for h x w windows: row by row the offsets Δ, and for each the offsets k.

        Returns:
            (N, C, H, W).
        """
        weight = self.pixel_weights(logits, value.shape[2:])
        return aggregation(value, weight, 2 * self.kernel_size - 1, padding_mode="zeros", groups="contiguous")

    def pixel_weights(self, logits: Tensor, size: tuple[int, ...]) -> Tensor:
        """The weight of every pixel p + k - Δ for every pixel p: (N, heads, (2K - 1) * (2K - 1), H * W)."""
        taps = self.kernel_size**2
        # (N, heads, Δ, k, windows): a softmax is fastest if the next dimension is long
        logits = logits.unflatten(-1, (self.num_heads, taps, taps)).permute(0, 3, 4, 5, 1, 2).flatten(4)
        attention = self.attn_drop((self.scale * logits).softmax(3))
        windows = Windows(self.kernel_size, self.stride, size)
        return add_windows(attention.unflatten(-1, windows.grid), windows).flatten(4).flatten(2, 3)

    def forward(self, features: Tensor) -> Tensor:
        """Attend in the windows of (N, H, W, C) features."""
        if features.ndim != 4 or features.shape[-1] != self.v.in_features:
            raise ValueError(
                f"features must have the shape (N, H, W, {self.v.in_features}), got {tuple(features.shape)}"
            )
        centres = self.pool(features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        attended = self.attend(self.v(features).permute(0, 3, 1, 2), self.attn(centres))
        return self.proj_drop(self.proj(attended.permute(0, 2, 3, 1)))

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        return f"num_heads={self.num_heads}, kernel_size={self.kernel_size}, stride={self.stride}"
