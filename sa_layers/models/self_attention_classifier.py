"""A SAN with a classification head, as in the paper's tables, in plain torch."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..checkpoints import matching
from ..layers.keywords import check_keywords
from .self_attention_network import SelfAttentionNetwork, network_keywords


class SelfAttentionClassifier(nn.Module):
    """A self-attention network, global average pooling, dropout and a linear layer.

    ``load_state_dict`` also accepts the names of the authors' checkpoints and of OpenMMLab's;
    :func:`sa_layers.checkpoints.load_checkpoint` reads a file.

    Args:
        depth: 10, 15, 19, or the number of blocks of each of the five stages. Defaults to 10.
        attention: 'pairwise' (default), 'patchwise', or a name given by
            :func:`sa_layers.layers.register_attention`.
        num_classes: The number of classes; 0 returns the pooled features instead of logits. Defaults to 1000.
        dropout: Probability of dropping a pooled feature in training. Defaults to 0.
        **network_options: Further arguments of :class:`SelfAttentionNetwork`, except ``out_indices``.

    Raises:
        TypeError: An argument is unknown.
        ValueError: The value of an argument is not allowed; the message names it.

    Example:
        >>> import torch
        >>> SelfAttentionClassifier(10, "patchwise", num_classes=5).eval()(torch.randn(2, 3, 64, 64)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        depth: int | Sequence[int] = 10,
        attention: str = "pairwise",
        num_classes: int = 1000,
        dropout: float = 0.0,
        **network_options: Any,
    ) -> None:
        super().__init__()
        check_keywords(self, SelfAttentionClassifier, network_options, network_keywords(attention))
        self.network = SelfAttentionNetwork(depth, attention, **network_options)
        self.num_features = self.network.out_channels[-1]
        self.dropout = nn.Dropout(dropout)
        self.head: nn.Module
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the linear layer by a new one, or by none for 0 classes.

        Raises:
            ValueError: ``num_classes`` is negative.
        """
        if num_classes < 0:
            raise ValueError(f"num_classes must not be negative, got {num_classes!r}")
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, num_classes)."""
        return self.forward_head(self.forward_features(image))

    def forward_features(self, image: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> the last stage's features (N, num_features, H / 32, W / 32)."""
        return self.network(image)[-1]

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, num_features, H, W) -> logits (N, num_classes), or the input of the linear layer if ``pre_logits``."""
        pooled = self.dropout(features.mean((2, 3)))
        return pooled if pre_logits else self.head(pooled)

    def _load_from_state_dict(self, state_dict: MutableMapping[str, Tensor], prefix: str, *arguments: Any) -> None:
        matching.prepare(state_dict, prefix, "network.", "head.")
        super()._load_from_state_dict(state_dict, prefix, *arguments)
