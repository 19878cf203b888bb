"""What timm's own tests ask of every model: gradients, heads, features, checkpointing, recording by torch.fx."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("timm")

import timm
import timm.models

from sa_layers.models.timm_registry import NAMES
from sa_layers.ops import fused

SMALL: dict[str, Any] = {"widths": (32, 32, 32, 32, 64), "kernel_sizes": (3, 3, 3, 3, 3)}
every_name = pytest.mark.parametrize("name", NAMES)
one_of_each = pytest.mark.parametrize("name", ["san10_pairwise", "san10_patchwise"])


def create(name: str, **options: Any) -> Any:
    """Make the same small model at every call, in evaluation mode."""
    torch.manual_seed(0)
    return timm.create_model(name, **SMALL | options).eval()


def images(model: Any, size: int | None = None) -> Tensor:
    """Noise of the size that the model's configuration names."""
    return torch.randn(2, *(model.default_cfg["input_size"] if size is None else (3, size, size)))


@every_name
def test_gradients(name: str) -> None:
    """Every parameter has a gradient, and nothing is NaN."""
    model = create(name, num_classes=42).train()
    logits = model(images(model, 64))
    assert logits.shape == (2, 42)
    logits.mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


@one_of_each
def test_configuration(name: str) -> None:
    """Sizes, the first layer and the classifier are those that the model's configuration names."""
    model = create(name)
    configuration, state, image = model.default_cfg, model.state_dict(), images(model)
    assert configuration is model.pretrained_cfg
    assert f"{configuration['classifier']}.weight" in state
    assert f"{configuration['first_conv']}.weight" in state
    map_size = (model.num_features, *configuration["pool_size"])
    features = model.forward_features(image)
    pooled = model.forward_head(features, pre_logits=True)
    assert features.shape[1:] == map_size
    assert pooled.shape == (2, model.head_hidden_size)
    model.reset_classifier(0)
    assert model.num_classes == 0
    torch.testing.assert_close(model(image), pooled)
    model.reset_classifier(0, "")
    assert model(image).shape[1:] == map_size
    assert create(name, num_classes=0, global_pool="")(image).shape[1:] == map_size


@every_name
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_features(name: str, output_stride: int) -> None:
    """Channels and sizes of the features are those of ``feature_info``."""
    model = create(name, features_only=True, output_stride=output_stride)
    assert max(model.feature_info.reduction()) == output_stride
    outputs = model(images(model, 64))
    described = zip(model.feature_info.channels(), model.feature_info.reduction(), strict=True)
    assert [output.shape[1:] for output in outputs] == [
        (width, 64 // stride, 64 // stride) for width, stride in described
    ]


@one_of_each
def test_intermediates(name: str) -> None:
    """They are those of the stages, and the last one is what the classifier reads."""
    model = create(name)
    image = images(model, 64)
    last, intermediates = model.forward_intermediates(image)
    torch.testing.assert_close(last, model.forward_features(image))
    information = timm.models.FeatureInfo(model.feature_info, len(model.feature_info))
    assert [each.shape[1] for each in intermediates] == information.channels()
    for name, expected in zip(information.module_name(), intermediates, strict=True):
        found: list[Tensor] = []
        hook = model.get_submodule(name).register_forward_hook(lambda *call, found=found: found.append(call[-1]))
        model(image)
        hook.remove()
        torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-4)


@one_of_each
@pytest.mark.parametrize("features_only", [False, True])
def test_checkpointing(name: str, features_only: bool) -> None:
    """Recomputation changes neither outputs nor gradients, of a classifier and of features."""
    results = []
    for checkpointing in (False, True):
        model = create(name, features_only=features_only).train()
        model.set_grad_checkpointing(checkpointing)
        generator = torch.Generator().manual_seed(0)
        outputs = model(torch.randn(2, 3, 64, 64, generator=generator))
        loss = sum(each.square().mean() for each in outputs)
        loss.backward()
        results.append([loss, *(parameter.grad for parameter in model.parameters())])
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-4)


@one_of_each
def test_torch_fx(name: str) -> None:
    """The program that torch.fx records computes the same, module by module."""
    model, recorded = create(name, features_only=True), create(name, features_only=True, feature_cls="fx")
    image = images(model, 64)
    with torch.no_grad(), fused(False):
        for output, expected in zip(recorded(image), model(image), strict=True):
            assert torch.equal(output, expected)


def test_every_norm_can_be_frozen() -> None:
    """timm's own helper, as DETR and other detectors use it."""
    from timm.utils.model import freeze_batch_norm_2d, unfreeze_batch_norm_2d

    model = create("san10_pairwise")
    image, expected = images(model, 64), create("san10_pairwise")
    frozen = freeze_batch_norm_2d(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())
    torch.testing.assert_close(frozen.train()(image), expected(image), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(unfreeze_batch_norm_2d(frozen).eval()(image), expected(image), rtol=1e-4, atol=1e-4)
