"""What timm.create_model(..., features_only=True) returns: the features of a model's stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from ..checkpoints.loading import fit
from ..checkpoints.matching import below, check
from .timm_network import TimmSelfAttentionNetwork


class StageFeatures(FeatureGetterNet):
    """The features of some stages, as timm's ``FeatureGetterNet`` returns them, with what other hosts ask for.

    Args:
        model: The network. Its head and the stages after the last of ``out_indices`` are dropped.
        out_indices: The stages, as numbers, or how many of the last ones. Defaults to 4.
        **options: Further arguments of ``FeatureGetterNet``.

    Attributes:
        return_layers: A dictionary whose keys are the names of the stages that are returned ('network.stages.2'). It
            may be assigned, as transformers does to get hidden states; names of dropped stages are ignored.

    Example:
        >>> features = StageFeatures(TimmSelfAttentionNetwork(10, "patchwise"), out_indices=(1, 3))
        >>> list(features.return_layers)
        ['network.stages.1', 'network.stages.3']
    """

    def __init__(self, model: TimmSelfAttentionNetwork, out_indices: Any = 4, **options: Any) -> None:
        super().__init__(model, out_indices, **options)
        self.return_layers: dict[str, object] = {
            name: str(index)
            for name, index in zip(self.feature_info.module_name(), self.feature_info.out_indices, strict=True)
        }

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, in_chans, H, W) -> the features of the stages in ``return_layers``, in the order of the stages.

        Raises:
            ValueError: No stage is named.
        """
        count = len(self.model.network.stages)
        stages = [index for index in range(count) if f"network.stages.{index}" in self.return_layers]
        if not stages:
            raise ValueError(
                f"return_layers must name a stage from 'network.stages.0' to 'network.stages.{count - 1}', "
                f"got {list(self.return_layers)}"
            )
        features: list[Tensor] = self.model.forward_intermediates(
            image, indices=stages, norm=self.norm, output_fmt=self.output_fmt, intermediates_only=True
        )
        return features

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Set whether blocks recompute their activations in the backward pass, to save memory."""
        self.model.set_grad_checkpointing(enable)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load the features' own state dict, or that of a whole model in any layout, whose head is left out.

        ``checkpoint_path`` of timm.create_model calls it.

        Raises:
            MismatchError: The state dict is of another network.
            RuntimeError: It is neither of these features nor of a whole model.
        """
        own = self.state_dict(keep_vars=True)
        if not own.keys() & state_dict.keys():
            state_dict = {name: value for name, value in fit(state_dict, own).items() if name.startswith("model.")}
            check(self.model.network, below(state_dict, "model.network."), whole=strict)
        return nn.Module.load_state_dict(self, state_dict, strict=strict, assign=assign)
