"""Features under names, which is how torchvision's detectors and segmenters read a backbone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from .self_attention_network import SelfAttentionNetwork


class NamedFeatures(nn.Module):
    """A network whose features have names instead of an order.

    It returns an ordered dictionary, which torchvision's ``FeaturePyramidNetwork``, ``DeepLabV3`` and ``FCN`` read.

    Args:
        network: The network.
        names: A name for each of its ``out_indices``, such as ``["aux", "out"]`` for a segmenter.

    Raises:
        ValueError: The network returns another number of features.

    Shapes:
        (N, in_channels, H, W) -> for each name (N, out_channels, H / stride, W / stride)

    Example:
        >>> import torch
        >>> network = SelfAttentionNetwork(10, "patchwise", out_indices=(3, 4))
        >>> {name: tuple(features.shape) for name, features in NamedFeatures(network, ["aux", "out"])(
        ...     torch.randn(1, 3, 64, 64)).items()}
        {'aux': (1, 1024, 4, 4), 'out': (1, 2048, 2, 2)}
    """

    def __init__(self, network: SelfAttentionNetwork, names: Sequence[str]) -> None:
        super().__init__()
        if len(names) != len(network.out_indices):
            raise ValueError(f"names must be {len(network.out_indices)}, one for each of out_indices, got {names!r}")
        self.network = network
        self.names = tuple(names)

    def forward(self, image: Tensor) -> OrderedDict[str, Tensor]:
        """Return the features by name, in the order of the stages."""
        return OrderedDict(zip(self.names, self.network(image), strict=True))
