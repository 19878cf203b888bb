"""The residual block of the SAN networks: self-attention where a ResNet bottleneck has its 3x3 convolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..ops import Epilogue
from ..ops.footprint import IntOrPair
from ..ops.projection import Linear, add_projection, pack, project
from .evaluation import affine, in_layout_of, map_of, may_pass_over, pixels_of, tensors_of
from .folding import FoldingModule
from .mapping import ActLayer, NormLayer
from .pairwise_self_attention import PairwiseSelfAttention
from .patchwise_self_attention import PatchwiseSelfAttention
from .self_attention import SelfAttention, default_act_layer

ATTENTIONS: dict[str, type[SelfAttention]] = {"pairwise": PairwiseSelfAttention, "patchwise": PatchwiseSelfAttention}


class SelfAttentionBlock(FoldingModule):
    r"""Norm, activation, self-attention at reduced width, norm, activation, linear expansion, and the identity.

    Figure 1 of the paper in pre-activation order, as the official network has it. The reductions are r1 = 16 for the
    relation and r2 = 4 for the value.

    Args:
        channels: C, of the input and the output; a multiple of 16 and of ``4 * share``.
        kernel_size: Taps of the footprint, odd.
        attention: 'pairwise' (default) or 'patchwise'.
        dilation: Pixels between taps. Defaults to 1.
        norm_layer: Makes a normalisation for a number of channels. Defaults to BatchNorm2d.
        act_layer: Makes an activation. Defaults to ReLU.
        **attention_options: Further arguments of the attention layer (relation, share, position, ...).

    Raises:
        ValueError: ``attention`` is unknown, or an option is not allowed.

    Shapes:
        (N, channels, H, W) -> (N, channels, H, W)

    Example:
        >>> import torch
        >>> SelfAttentionBlock(256, kernel_size=7)(torch.randn(1, 256, 8, 8)).shape
        torch.Size([1, 256, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        kernel_size: IntOrPair,
        attention: str = "pairwise",
        dilation: IntOrPair = 1,
        norm_layer: NormLayer = nn.BatchNorm2d,
        act_layer: ActLayer = default_act_layer,
        **attention_options: Any,
    ) -> None:
        super().__init__()
        if attention not in ATTENTIONS:
            raise ValueError(f"attention must be one of {', '.join(ATTENTIONS)}, got {attention!r}")
        reduced_channels = channels // 4
        self.norm1 = norm_layer(channels)
        self.act1 = act_layer()
        self.attention = ATTENTIONS[attention](
            channels,
            reduced_channels,
            kernel_size,
            dilation=dilation,
            norm_layer=norm_layer,
            act_layer=act_layer,
            **attention_options,
        )
        self.norm2 = norm_layer(reduced_channels)
        self.act2 = act_layer()
        self.expansion = nn.Conv2d(reduced_channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """The block's output, of the shape of its input."""
        if self.may_evaluate(features):
            pixels = features.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
            pixels += self.add_residual(pixels, pixels.new_zeros(()))
            return in_layout_of(features, map_of(pixels))
        normalised = self.norm1(features)
        if normalised is features:  # nn.Identity: an in-place activation would reach the identity branch
            normalised = features.clone()
        residual = self.attention(self.act1(normalised))
        return features + self.expansion(self.act2(self.norm2(residual)))

    def may_evaluate(self, features: Tensor) -> bool:
        """Whether :meth:`add_residual` may stand for a call of the block with ``features``."""
        # Straight from the dictionary, as in add_residual: attributes of modules are looked up slowly.
        modules: Any = self._modules
        attention, expansion = modules["attention"], modules["expansion"]
        return type(attention) in ATTENTIONS.values() and may_pass_over(
            features,
            norms=[modules["norm1"], modules["norm2"]],
            activations=[modules["act1"], modules["act2"]],
            linear=[*attention.transforms(), expansion],
            around=[self, attention],
        )

    def add_residual(self, pixels: Tensor, offset: Tensor, norm: Epilogue | None = None) -> Tensor:
        """The evaluation path: adds the residual to ``pixels`` in place, all but the bias of the expansion.

        Biases are the same for every pixel: a stage collects them, and its norms take them into their shifts.

        Args:
            pixels: (N, H, W, C), channels last.
            offset: What is missing in them, (C,): ``pixels + offset`` are the block's features.
            norm: What comes after the block, then nothing is missing: a frozen norm, which is followed by a ReLU.

        Returns:
            What is missing before the norm.
        """
        modules: Any = self._modules
        attention, linear = modules["attention"], modules["expansion"]
        transforms = attention.transforms()
        sources = tensors_of([modules["norm1"], modules["norm2"], *transforms, linear])
        scale, shift, scale2, shift2, *parameters = self._folded(sources)
        transform, expansion = Linear(*parameters[:2]), Linear(*parameters[2:])
        channels = sum([layer.out_channels for layer in transforms])
        before = Epilogue(scale, torch.addcmul(shift, scale, offset))
        query, key, value = attention.split(map_of(project(pixels, transform, channels, before)))
        attended = pixels_of(attention.attend(query, key, value, Epilogue(scale2, shift2)))
        bias = linear._parameters["bias"]
        offset = offset if bias is None else offset + bias
        if norm is not None:
            norm = Epilogue(norm.scale, torch.addcmul(norm.shift, norm.scale, offset))
        add_projection(attended, expansion, pixels, norm)
        return offset

    def _fold(self, *_: Tensor) -> tuple[Tensor, ...]:
        """Scales and shifts of the norms; the attention's transforms as one layer, and the expansion."""
        transforms = self.attention.transforms()
        weight = torch.cat([layer.weight.flatten(1) for layer in transforms])
        zeros = weight.new_zeros(weight.shape[0])
        bias = torch.cat([zeros[: layer.out_channels] if layer.bias is None else layer.bias for layer in transforms])
        expansion = pack(self.expansion.weight.flatten(1).t())
        return *affine(self.norm1), *affine(self.norm2), *pack(weight.t(), bias), *expansion
