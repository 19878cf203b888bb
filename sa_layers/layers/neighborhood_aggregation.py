"""Neighborhood attention: the operators ``na2d_qk`` and ``na2d_av`` of NATTEN 0.17, and the layer made of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops import ALL_PADDING_MODES, aggregation, pairwise_relation, softmax_aggregation
from ..ops.checks import autocast, check_alike, check_shape, check_tensors
from ..ops.footprint import Footprint, IntOrPair
from .sizes import divisor, positive


def na2d_qk(
    query: Tensor, key: Tensor, kernel_size: IntOrPair, dilation: IntOrPair = 1, rpb: Tensor | None = None
) -> Tensor:
    r"""The logits of neighborhood attention: dot products of every query with the keys of its window.

    .. math:: l_{h,i,t} = q_{h,i}^\top k_{h,\rho(i,t)} + B_{h,\, \rho(i,t) - i}

    ρ(i, t) is the pixel under tap t of the window of pixel i. A window that would reach over the border is moved
    inwards, so that all its taps lie on the map. The function is that of NATTEN up to 0.17, without causal masks and
    additional keys.

    Args:
        query: q, (N, heads, H, W, D), already scaled.
        key: k, as ``query``.
        kernel_size: Taps of the window, odd; an integer or (height, width).
        dilation: Pixels between taps; the map has at least ``kernel_size * dilation`` pixels along each axis.
        rpb: The relative positional bias B, (heads, 2 * Kh - 1, 2 * Kw - 1), or None (default).

    Returns:
        (N, heads, H, W, Kh * Kw).

    Raises:
        TypeError: A dtype is not allowed, or two differ outside autocast.
        ValueError: A shape or size does not fit; the message names it.

    Example:
        >>> query, key = torch.randn(2, 1, 4, 14, 14, 32)
        >>> na2d_qk(query, key, kernel_size=7).shape
        torch.Size([1, 4, 14, 14, 49])
    """
    check_heads(query, "query")
    check_shape(key, "key", tuple(query.shape), f"query {tuple(query.shape)}")
    query, key = autocast(query, key)
    check_alike(query, "query", key, "key")
    logits = pairwise_relation(
        to_maps(query), to_maps(key), kernel_size, "dot", dilation=dilation, padding_mode="clamp"
    )
    logits = logits.squeeze(1).unflatten(0, query.shape[:2])
    if rpb is not None:
        footprint = clamped(kernel_size, dilation)
        logits = logits + window_bias(rpb, footprint, query.shape[1:4]).to(logits.dtype)
    return logits.unflatten(-1, query.shape[2:4]).permute(0, 1, 3, 4, 2)


def na2d_av(attn: Tensor, value: Tensor, kernel_size: IntOrPair, dilation: IntOrPair = 1) -> Tensor:
    r"""The output of neighborhood attention: the values of every window, each multiplied by its weight.

    .. math:: y_{h,i} = \sum_t a_{h,i,t} \; v_{h,\rho(i,t)}

    Args:
        attn: The weights a, (N, heads, H, W, Kh * Kw).
        value: v, (N, heads, H, W, D).
        kernel_size: See :func:`na2d_qk`.
        dilation: See :func:`na2d_qk`.

    Returns:
        (N, heads, H, W, D).

    Raises:
        TypeError: A dtype is not allowed, or the two differ outside autocast.
        ValueError: A shape or size does not fit; the message names it.

    Example:
        >>> na2d_av(torch.full((1, 4, 14, 14, 49), 1 / 49), torch.randn(1, 4, 14, 14, 32), kernel_size=7).shape
        torch.Size([1, 4, 14, 14, 32])
    """
    check_heads(value, "value")
    taps = clamped(kernel_size, dilation).taps
    check_shape(attn, "attn", (*value.shape[:4], taps), f"value {tuple(value.shape)} and {taps} taps")
    attn, value = autocast(attn, value)
    check_alike(attn, "attn", value, "value")
    weight = to_maps(attn).flatten(2).unsqueeze(1)
    output = aggregation(to_maps(value), weight, kernel_size, dilation=dilation, padding_mode="clamp")
    return output.unflatten(0, value.shape[:2]).permute(0, 1, 3, 4, 2)


class NeighborhoodAggregation(nn.Module):
    r"""Multi-head self-attention in which every pixel attends to the nearest K x K pixels.

    .. math::
        y_i = W \sum_t \operatorname{softmax}_t\left(\frac{q_i^\top k_{\rho(i,t)}}{\sqrt{D}} + B_{\rho(i,t) - i}\right)
        v_{\rho(i,t)}

    Equations 1 to 3 of "Neighborhood Attention Transformer" (https://arxiv.org/abs/2204.07143), with the dilation of
    "Dilated Neighborhood Attention Transformer" (https://arxiv.org/abs/2209.15001). The arguments and the names of the
    parameters are those of ``NeighborhoodAttention2D`` of NATTEN up to 0.17, so that its checkpoints load.

    Args:
        dim: Channels of input and output.
        num_heads: The number of heads, a divisor of ``dim``.
        kernel_size: K, odd; an integer or (height, width).
        dilation: Pixels between taps. Defaults to 1.
        rel_pos_bias: Whether there is a relative positional bias B. Defaults to False.
        qkv_bias: Whether queries, keys and values have a bias. Defaults to True.
        qk_scale: The factor of the queries. Defaults to None, for ``(dim / num_heads) ** -0.5``.
        attn_drop: Dropout of the weights. Defaults to 0.
        proj_drop: Dropout of the output. Defaults to 0.

    Shapes:
        (N, H, W, C) -> (N, H, W, C), with at least ``kernel_size * dilation`` pixels along each axis.

    Example:
        >>> NeighborhoodAggregation(64, num_heads=2, kernel_size=7)(torch.randn(1, 14, 14, 64)).shape
        torch.Size([1, 14, 14, 64])
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        kernel_size: IntOrPair,
        dilation: IntOrPair = 1,
        rel_pos_bias: bool = False,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = divisor(num_heads, "num_heads", positive(dim, "dim"), "dim")
        self.head_dim = dim // num_heads
        self.footprint = clamped(kernel_size, dilation)
        self.kernel_size, self.dilation = self.footprint.kernel_size, self.footprint.dilation
        self.scale = self.head_dim**-0.5 if qk_scale is None else qk_scale
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.rpb = None
        if rel_pos_bias:
            self.rpb = nn.Parameter(torch.empty(num_heads, *(2 * taps - 1 for taps in self.kernel_size)))
            nn.init.trunc_normal_(self.rpb, std=0.02)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, features: Tensor) -> Tensor:
        """Attend in the window of every pixel of (N, H, W, C) features."""
        if features.ndim != 4 or features.shape[-1] != self.proj.in_features:
            raise ValueError(
                f"features must have the shape (N, H, W, {self.proj.in_features}), got {tuple(features.shape)}"
            )
        size = features.shape[1:3]
        self.footprint.check_size(*size)
        query, key, value = self.qkv(features).permute(0, 3, 1, 2).chunk(3, dim=1)
        of_heads = (-1, self.head_dim, *size)
        logits = pairwise_relation(
            (self.scale * query).reshape(of_heads), key.reshape(of_heads), self.kernel_size, "dot", *self.footprint[1:]
        )
        logits = logits.reshape(-1, self.num_heads, self.footprint.taps, size[0] * size[1])
        if self.rpb is not None:
            logits = logits + window_bias(self.rpb, self.footprint, (self.num_heads, *size)).to(logits.dtype)
        if self.attn_drop.p and self.training:
            attended = aggregation(value, self.attn_drop(logits.softmax(2)), *self.footprint, groups="contiguous")
        else:
            attended = softmax_aggregation(value, logits, *self.footprint, groups="contiguous")
        return self.proj_drop(self.proj(attended.permute(0, 2, 3, 1)))

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        parts = f"head_dim={self.head_dim}, num_heads={self.num_heads}, kernel_size={self.kernel_size}"
        return f"{parts}, dilation={self.dilation}, rel_pos_bias={self.rpb is not None}"


def clamped(kernel_size: IntOrPair, dilation: IntOrPair) -> Footprint:
    """The footprint of neighborhood attention."""
    return Footprint.parse(kernel_size, 1, dilation, "clamp", allowed=ALL_PADDING_MODES)


def check_heads(tensor: Tensor, name: str) -> None:
    """Raise an error unless a tensor is (N, heads, H, W, D)."""
    check_tensors(**{name: tensor})
    if tensor.ndim != 5:
        raise ValueError(f"{name} must have the shape (N, heads, H, W, D), got {tuple(tensor.shape)}")


def to_maps(tensor: Tensor) -> Tensor:
    """(N, heads, H, W, D) -> (N * heads, D, H, W)."""
    return tensor.permute(0, 1, 4, 2, 3).flatten(0, 1)


def window_bias(rpb: Tensor, footprint: Footprint, size: tuple[int, ...]) -> Tensor:
    """The bias of every tap: (heads, 2 * Kh - 1, 2 * Kw - 1) -> (heads, Kh * Kw, H * W) for (heads, H, W).

    Example:
        >>> window_bias(torch.arange(5).view(1, 1, 5), clamped((1, 3), 1), (1, 1, 4))[0]
        tensor([[2, 1, 1, 0],
                [3, 2, 2, 1],
                [4, 3, 3, 2]])
    """
    heads, sides = size[0], size[1:]
    check_shape(
        rpb, "rpb", (heads, *(2 * taps - 1 for taps in footprint.kernel_size)), f"{heads} heads and {footprint}"
    )
    for axis, (taps, side) in enumerate(zip(footprint.kernel_size, sides, strict=True)):
        tap_and_pixel = torch.arange(taps * side, device=rpb.device)
        tap, pixel = tap_and_pixel // side, tap_and_pixel % side
        steps = (footprint.sources(axis, tap, pixel, side) - pixel) // footprint.dilation[axis]
        rpb = rpb.index_select(axis + 1, steps + taps - 1)
    bias = rpb.unflatten(2, (footprint.kernel_size[1], sides[1])).unflatten(1, (footprint.kernel_size[0], sides[0]))
    return bias.transpose(2, 3).flatten(3, 4).flatten(1, 2)
