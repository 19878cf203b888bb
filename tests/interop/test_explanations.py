"""captum and pytorch-grad-cam on a classifier and on timm's model, compared with autograd's gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from .networks import CLASSES, IMAGE, SMALL, classifier

TARGET = 1
TARGETS = torch.arange(len(IMAGE)), torch.full((len(IMAGE),), TARGET)


def model_of_timm(attention: str = "pairwise", **options: Any) -> Any:
    """The classifier by its name in timm's registry, with more blocks."""
    timm = pytest.importorskip("timm")
    import sa_layers.models.timm_registry  # noqa: F401

    torch.manual_seed(0)
    small = {name: SMALL[name] for name in ("widths", "kernel_sizes")}
    return timm.create_model(f"san10_{attention}", num_classes=CLASSES, **small | options).eval()


MODELS = pytest.mark.parametrize("make", [classifier, model_of_timm])
ATTENTIONS = pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
ACTIVATIONS = pytest.mark.parametrize("options", [{}, {"act_layer": nn.ReLU}], ids=["in place", "not in place"])


def gradient(model: nn.Module, image: Tensor) -> Tensor:
    """Autograd's, of the logit of the target."""
    image = image.clone().requires_grad_()
    (result,) = torch.autograd.grad(model(image)[TARGETS].sum(), image)
    return result


def grad_cam(model: Any) -> Tensor:
    """Grad-CAM of the last stage before its ReLU: channels weighted by their mean gradient, (N, 1, H, W)."""
    features = model.forward_features(IMAGE)
    (gradients,) = torch.autograd.grad(model.forward_head(features)[TARGETS].sum(), features)
    return (gradients.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True).detach()


@MODELS
@ATTENTIONS
@ACTIVATIONS
def test_gradients_of_captum(make: Callable[..., Any], attention: str, options: dict[str, Any]) -> None:
    attr = pytest.importorskip("captum.attr")
    model = make(attention, **options)
    saliency = attr.Saliency(model).attribute(IMAGE, target=TARGET, abs=False)
    torch.testing.assert_close(saliency, gradient(model, IMAGE))
    integrated = attr.IntegratedGradients(model).attribute(IMAGE, target=TARGET, n_steps=2, method="riemann_right")
    expected = IMAGE * (gradient(model, IMAGE / 2) + gradient(model, IMAGE)) / 2
    torch.testing.assert_close(integrated.float(), expected, rtol=1e-4, atol=1e-6)
    cam = attr.LayerGradCam(model, model.network.stages[-1]).attribute(IMAGE, target=TARGET)
    torch.testing.assert_close(cam, grad_cam(model))


class GuidedReLU(torch.autograd.Function):
    """A ReLU whose gradient is positive."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        return features.relu()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        return gradients[0].relu() * (features > 0)


class Guided(nn.Module):
    """A module of :class:`GuidedReLU`."""

    def forward(self, features: Tensor) -> Tensor:
        return GuidedReLU.apply(features)  # type: ignore[no-any-return]


@MODELS
@ATTENTIONS
@ACTIVATIONS
def test_hooks_of_captum(make: Callable[..., Any], attention: str, options: dict[str, Any]) -> None:
    """Methods that put hooks on every activation, also on those that work in place."""
    attr = pytest.importorskip("captum.attr")
    model = make(attention, **options)
    plain = gradient(model, IMAGE)
    guided = attr.GuidedBackprop(model).attribute(IMAGE, target=TARGET)
    torch.testing.assert_close(guided, gradient(make(attention, act_layer=Guided), IMAGE))
    assert not torch.equal(guided, plain)
    torch.testing.assert_close(gradient(model, IMAGE), plain)  # the hooks are gone


@MODELS
@ATTENTIONS
@ACTIVATIONS
def test_pytorch_grad_cam(make: Callable[..., Any], attention: str, options: dict[str, Any]) -> None:
    cams = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.image import scale_cam_image
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = make(attention, **options)
    targets = [ClassifierOutputTarget(TARGET)] * len(IMAGE)
    with cams.GradCAM(model=model, target_layers=[model.network.stages[-1]]) as cam:
        maps = cam(input_tensor=IMAGE, targets=targets)
    size = IMAGE.shape[-1], IMAGE.shape[-2]
    expected = scale_cam_image(np.maximum(grad_cam(model)[:, 0].numpy(), 0), size)
    np.testing.assert_allclose(maps, expected, atol=1e-3)  # the tool scales twice
    with cams.EigenCAM(model=model, target_layers=[model.network.stages[-1]]) as cam:
        assert cam(input_tensor=IMAGE, targets=targets).shape == (len(IMAGE), *size[::-1])
