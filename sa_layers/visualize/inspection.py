"""Access to the attention layers and features of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.self_attention import SelfAttention
from .errors import VisualizationError


def attention_layers(model: nn.Module) -> dict[str, SelfAttention]:
    """Return the attention layers of a model by name, in the order of their definition.

    Raises:
        VisualizationError: If the model has no attention layers.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, SelfAttention)}
    if not layers:
        raise VisualizationError(f"{type(model).__name__} has no attention layers of sa_layers")
    return layers


def compute_features(model: nn.Module, images: Tensor) -> Any:
    """Call a model, or only backbone and neck of an OpenMMLab model, whose head would require annotations."""
    try:
        return getattr(model, "extract_feat", model)(images)
    except ValueError as error:  # such as an image smaller than the network's stride
        raise VisualizationError(str(error)) from error
    except (AttributeError, RuntimeError, TypeError) as error:  # models of configs may be of parts that do not match
        reason = str(error).partition("\n")[0]
        raise VisualizationError(f"{type(model).__name__} fails for the image: {reason}") from error


@contextmanager
def in_evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Set the model to evaluation mode inside the block and restore the mode of every module afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def forward_hooks(modules: dict[str, nn.Module], callback: Callable[[str, Tensor, Tensor], None]) -> Iterator[None]:
    """Call ``callback(name, input, output)`` after each call of one of the modules inside the block.

    Forward hooks disable the fused path, which does not call the modules inside a block.
    """
    with ExitStack() as stack:
        for name, module in modules.items():

            def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
                callback(name, inputs[0], output)

            stack.callback(module.register_forward_hook(hook).remove)
        yield


def check_image(image: Tensor) -> Tensor:
    """Check an image (C, H, W) or (N, C, H, W) and return it as (N, C, H, W)."""
    if not isinstance(image, Tensor) or image.dim() not in (3, 4) or not torch.is_floating_point(image):
        given = f"{image.dtype} of shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise VisualizationError(
            f"image must be a normalised floating-point tensor of shape (C, H, W) or (N, C, H, W), got {given}"
        )
    return image if image.dim() == 4 else image.unsqueeze(0)
