"""The self-attention networks SAN10, SAN15 and SAN19: a stem and five stages of residual blocks.

Table 1 of "Exploring Self-attention for Image Recognition" (https://arxiv.org/abs/2004.13621), with the parameters and
the function of the official network. Plain torch; backbones/ adds what OpenMMLab's trainers expect.
"""

from __future__ import annotations

import math
from collections.abc import Collection, MutableMapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from ..checkpoints import matching
from ..fused import FusedModule
from ..fused.eligibility import HOOKED, accepts, has_hooks, why_not_accepted
from ..fused.evaluation.network import EvaluationNetwork
from ..fused.evaluation.parameters import Parameters
from ..fused.originals import why_not_original
from ..fused.structure import Structure
from ..fused.training.network import NetworkPlan, StagePlan
from ..fused.watch import call_untraced
from ..layers.keywords import check_keywords, keywords
from ..layers.mapping import ActLayer
from ..layers.norm import NormLayer, inside, make_norm
from ..layers.self_attention import default_act_layer
from ..layers.self_attention_block import attention_keywords
from ..ops.checks import autocast
from ..ops.footprint import IntOrPair
from . import stage_arguments
from .self_attention_stage import SelfAttentionStage
from .stem import Stem

STAGES = stage_arguments.STAGES


class SelfAttentionNetwork(FusedModule[EvaluationNetwork]):
    """A SAN without a head, which returns the features of its stages.

    Args:
        depth: 10, 15, 19, or the number of blocks of each of the five stages. Defaults to 10.
        attention: 'pairwise' (default), 'patchwise', or a name given by
            :func:`sa_layers.layers.register_attention`.
        in_channels: Channels of the image. Defaults to 3.
        kernel_sizes: The footprint of each stage. Defaults to (3, 7, 7, 7, 7).
        widths: Channels of each stage. Defaults to (64, 256, 512, 1024, 2048).
        strides: 2 for 2x2 max-pooling at the beginning of a stage, 1 for none. Defaults to 2 for all.
        dilations: Pixels between the taps of each stage's footprints. Defaults to 1 for all.
        out_indices: The stages whose features are returned; negative numbers count from the end. Defaults to (-1,).
        position_image_size: The size in pixels of the images of pre-training, an integer or (height, width). Positions
            then have the scale that they had in pre-training for images of every size. Defaults to None, for positions
            that scale with the image as in the official network: six pixels of an image of 1333 pixels are encoded like
            one pixel of an image of 224.
        with_cp: Whether blocks recompute their activations in the backward pass, to save memory. Defaults to False.
        norm_layer: Makes a normalisation for a number of channels. Defaults to BatchNorm2d.
        act_layer: Makes an activation. Defaults to an in-place ReLU; full backward hooks need one that is not in
            place, such as ``nn.ReLU``.
        num_stages: The number of stages that exist, from 1 to 5, each with its value of the arguments above. Stages
            behind the last of ``out_indices`` are never called and do not require gradients. Defaults to None, for
            the stages up to the last of ``out_indices``. Tensors of further stages are ignored when a state dict is
            loaded.
        **attention_options: Further arguments of the attention layers: relation, position, mapping_layers, share,
            shared_transforms, padding_mode.

    Raises:
        TypeError: An argument that is an integer has another type.
        ValueError: The value of an argument is not allowed; the message names it.

    Example:
        >>> import torch
        >>> network = SelfAttentionNetwork(10, "patchwise", out_indices=(1, 2, 3, 4))
        >>> [tuple(features.shape) for features in network(torch.randn(1, 3, 64, 64))]
        [(1, 256, 16, 16), (1, 512, 8, 8), (1, 1024, 4, 4), (1, 2048, 2, 2)]
    """

    arch_settings: ClassVar[dict[int, tuple[int, ...]]] = {
        10: (2, 1, 2, 4, 1),
        15: (3, 2, 3, 5, 2),
        19: (3, 3, 4, 6, 3),
    }

    def __init__(
        self,
        depth: int | Sequence[int] = 10,
        attention: str = "pairwise",
        in_channels: int = 3,
        kernel_sizes: Sequence[int] = (3, 7, 7, 7, 7),
        widths: Sequence[int] = (64, 256, 512, 1024, 2048),
        strides: Sequence[int] = (2, 2, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1, 1),
        out_indices: int | Sequence[int] = (-1,),
        position_image_size: IntOrPair | None = None,
        with_cp: bool = False,
        norm_layer: NormLayer = nn.BatchNorm2d,
        act_layer: ActLayer = default_act_layer,
        *,
        num_stages: int | None = None,
        **attention_options: Any,
    ) -> None:
        super().__init__()
        check_keywords(self, SelfAttentionNetwork, attention_options, attention_keywords(attention))
        self.out_indices, num_stages = stage_arguments.resolve_stages(out_indices, num_stages)
        self.stage_blocks = stage_arguments.blocks_of_stages(depth, self.arch_settings, num_stages)
        kernel_sizes, widths, strides, dilations = (
            stage_arguments.values_of_stages(name, values, num_stages)
            for name, values in {
                "kernel_sizes": kernel_sizes,
                "widths": widths,
                "strides": strides,
                "dilations": dilations,
            }.items()
        )
        total_strides = [math.prod(strides[: index + 1]) for index in range(num_stages)]
        image_size = stage_arguments.sides_of_position_image(position_image_size, total_strides[-1])
        self.attention = attention
        self.out_channels = tuple(widths[index] for index in self.out_indices)
        self.out_strides = tuple(total_strides[index] for index in self.out_indices)
        norm = make_norm(norm_layer, widths[0], "stem.1")
        self.stem = Stem(nn.Conv2d(in_channels, widths[0], 1, bias=False), norm, act_layer())
        self.stages = nn.ModuleList()
        for index, channels in enumerate((widths[0], *widths[:-1])):
            if image_size is not None:
                attention_options["position_size"] = tuple(side // total_strides[index] for side in image_size)
            with inside(f"stages.{index}"):
                self.stages.append(
                    SelfAttentionStage(
                        channels,
                        widths[index],
                        self.stage_blocks[index],
                        kernel_sizes[index],
                        strides[index],
                        attention=attention,
                        dilation=dilations[index],
                        with_cp=with_cp,
                        norm_layer=norm_layer,
                        act_layer=act_layer,
                        **attention_options,
                    )
                )
        self.stages[self.out_indices[-1] + 1 :].requires_grad_(False)

    @property
    def min_size(self) -> int:
        """The height and width of the smallest image: the stride of the last stage that is called."""
        return self.out_strides[-1]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, H, W) -> a tuple of the features of the stages in ``out_indices``.

        Raises:
            ValueError: The image is smaller than the stride of the network, or has another number of channels.
        """
        if isinstance(image, Tensor):  # not a symbol of torch.fx
            self._check_image(image)
        first = next(self.stages.parameters(), None)
        if first is not None and accepts(image, first):
            evaluated = self.evaluated(image.to(first.dtype))
            if evaluated is not None:
                return autocast(*evaluated)
        if self.is_trained_untraced(image):
            result: tuple[Tensor, ...] = call_untraced(SelfAttentionNetwork.forward, self, image)
            return result
        if first is not None and accepts(image, first, training=True) and (plan := self.trained(image)) is not None:
            return tuple(plan.compute(*autocast(image), self.out_indices))
        features, outputs = self.stem(image), []
        for index, stage in enumerate(self._called_stages()):
            features = stage(features)
            if index in self.out_indices:
                outputs.append(features)
        return tuple(outputs)

    def why_not_eligible(self, training: bool = False) -> str | None:
        """One sentence on the first part that keeps the network from being computed as a whole, or None.

        In training its parts are computed one by one, so none of them keeps the others from being fused.
        """
        if training:
            return None
        weights = []
        for name, part in self._called_parts():
            if not isinstance(part, Stem | SelfAttentionStage) or type(part) not in (Stem, SelfAttentionStage):
                return f"{name} is a {type(part).__name__}"
            if has_hooks(part):
                return f"{name} {HOOKED}"
            obstacle = part.why_not_eligible()
            if obstacle is None and isinstance(part, SelfAttentionStage):
                obstacle = part.why_not_pooling()
                weights.append(part.transition.weight)
            if obstacle is not None:
                return f"{name}: {obstacle}"
        if len({(weight.dtype, weight.device) for weight in weights}) > 1:
            return "the stages have different dtypes or devices"
        first: Any = self.stages[0]
        return None if first.pooling_stride() == 2 else "stages.0 does not pool, and the operator of the stem does"

    def plan_training(self) -> NetworkPlan:
        """Return the network in training, with the parts that are not eligible as modules that are called."""
        stages: list[Any] = [self._plan_stage(stage) for stage in self._called_stages()]
        stem = None
        if isinstance(stages[0], StagePlan) and stages[0].pools and type(self.stem) is Stem and _is_fused(self.stem):
            stem = self.stem.plan_training()
        return NetworkPlan(stem, self.stem, stages)

    def _plan_stage(self, stage: nn.Module) -> StagePlan | nn.Module:
        if type(stage) is not SelfAttentionStage or not _is_fused(stage):
            return stage
        stride = stage.pooling_stride()
        pool = stage.pool if stride is None else None
        return StagePlan(pool, stride == 2, stage.plan_training(), stage.call_blocks, stage.training_norm())

    def plan(self, parameters: Parameters) -> EvaluationNetwork:
        """Return the network in evaluation."""
        stages = [stage.plan(parameters) for stage in self._called_stages() if isinstance(stage, SelfAttentionStage)]
        return EvaluationNetwork(self.stem.plan(parameters), stages, tuple(self.out_indices))

    def why_not_fused(self, *features: Tensor) -> str | None:
        """One sentence on the first part that would be computed module by module for an image, or None.

        Args:
            *features: The image.

        Example:
            >>> import torch
            >>> network = SelfAttentionNetwork(10)
            >>> network.why_not_fused(torch.zeros(1, 3, 64, 64))  # None, where the native kernels are built
            >>> _ = network.stages[1].blocks[0].norm1.register_forward_hook(lambda *_: None)
            >>> network.why_not_fused(torch.zeros(1, 3, 64, 64))
            'stages.1: in blocks.0 a BatchNorm2d has a forward hook or an overridden forward'
        """
        evaluated = not Structure(self).is_trained(features)
        if evaluated and (obstacle := why_not_original() or self.why_not_eligible()):
            return obstacle
        for name, part in self._called_parts():
            if isinstance(part, Stem | SelfAttentionStage) and (obstacle := part.why_not_fused(*features)):
                return f"{name}: {obstacle}"
        return None

    def why_not_accepted(self, features: Sequence[Tensor], training: bool = False) -> str | None:
        """What keeps the network from reading the image, or None."""
        first = next(self.stages.parameters(), None)
        return "the stages have no parameters" if first is None else why_not_accepted(features[0], first, training)

    def why_not_parts(self, training: bool = False) -> str | None:
        """What keeps a part of the network from being fused; the others may still be."""
        for name, part in self._called_parts():
            if not isinstance(part, Stem | SelfAttentionStage):
                return f"{name} is a {type(part).__name__}"
            if obstacle := part.why_not_eligible(training) or part.why_not_parts(training):
                return f"{name}: {obstacle}"
        return None

    def _called_parts(self) -> list[tuple[str, nn.Module]]:
        stages = enumerate(self._called_stages())
        return [("stem", self.stem), *((f"stages.{index}", stage) for index, stage in stages)]

    def _check_image(self, image: Tensor) -> None:
        if image.ndim != 4:
            raise ValueError(f"the image must have the shape (N, C, H, W), got {tuple(image.shape)}")
        linear = next(self.stem.children(), None)
        if isinstance(linear, nn.Conv2d) and image.shape[1] != linear.in_channels:
            raise ValueError(f"the image must have {linear.in_channels} channels, got {image.shape[1]}")
        if min(image.shape[-2:]) < self.min_size:
            raise ValueError(
                f"the image must be at least {self.min_size} x {self.min_size} pixels, the network's stride, "
                f"got {image.shape[-2]} x {image.shape[-1]}"
            )

    def _called_stages(self) -> list[nn.Module]:
        return list(self.stages)[: self.out_indices[-1] + 1]

    def _load_from_state_dict(self, state_dict: MutableMapping[str, Tensor], prefix: str, *arguments: Any) -> None:
        """Rename the tensors of other layouts, leave out those of stages that only other networks have, refuse others.

        sa_layers/checkpoints/matching.py says what is refused.
        """
        matching.prepare(state_dict, prefix)
        absent = tuple(f"{prefix}stages.{index}." for index in range(len(self.stages), STAGES))
        for name in [name for name in state_dict if name.startswith(absent)]:
            del state_dict[name]
        matching.check(self, matching.below(state_dict, prefix))
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def _is_fused(part: FusedModule[Any]) -> bool:
    """Whether a part need not be called in training."""
    return not has_hooks(part, training=True) and part.why_not_eligible(training=True) is None


def network_keywords(attention: str, without: Collection[str] = ()) -> list[str]:
    """Return the names of all arguments of a network, with those of its attention layers.

    Raises:
        ValueError: ``attention`` is unknown.
    """
    names = [*keywords(SelfAttentionNetwork), *attention_keywords(attention)]
    return [name for name in names if name not in without]
