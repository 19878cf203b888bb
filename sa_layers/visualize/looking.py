"""Looking inside a model: hooks on some of its modules while it computes the features of an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.self_attention import SelfAttention
from .errors import VisualizationError


def attention_layers(model: nn.Module) -> dict[str, SelfAttention]:
    """The attention layers of a model by name, in the order of their definition.

    Raises:
        VisualizationError: There are none.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, SelfAttention)}
    if not layers:
        raise VisualizationError(f"{type(model).__name__} has no attention layers of sa_layers to look at")
    return layers


def compute_features(model: nn.Module, images: Tensor) -> Any:
    """Backbone and neck of an OpenMMLab model, without its head, whose call asks for annotations; all of any other."""
    try:
        return getattr(model, "extract_feat", model)(images)
    except ValueError as error:  # such as an image smaller than the network's stride
        raise VisualizationError(str(error)) from error


@contextmanager
def in_evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within; afterwards every module in the mode that it was in, frozen ones too."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def watching(modules: dict[str, nn.Module], see: Callable[[str, Tensor, Tensor], None]) -> Iterator[None]:
    """Calls ``see(name, input, output)`` after each call of one of ``modules``.

    A hooked module is always called, so this turns off the fused paths of evaluation, which pass modules over.
    """
    with ExitStack() as stack:
        for name, module in modules.items():

            def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
                see(name, inputs[0], output)

            stack.callback(module.register_forward_hook(hook).remove)
        yield


def check_image(image: Tensor) -> Tensor:
    """(C, H, W) or (N, C, H, W) -> (N, C, H, W)."""
    if not isinstance(image, Tensor) or image.dim() not in (3, 4) or not torch.is_floating_point(image):
        given = f"{image.dtype} of shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise VisualizationError(
            f"image must be a normalised floating-point tensor of shape (C, H, W) or (N, C, H, W), got {given}"
        )
    return image if image.dim() == 4 else image.unsqueeze(0)
