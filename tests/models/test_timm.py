"""The networks as timm's users know models: by name, with timm's arguments and methods."""

from __future__ import annotations

from collections.abc import Callable
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch

pytest.importorskip("timm")

import timm
import timm.optim

from sa_layers.models import SelfAttentionClassifier, SelfAttentionNetwork
from sa_layers.models.timm_registry import NAMES

SMALL = {"widths": (32, 32, 32, 32, 64), "kernel_sizes": (3, 3, 3, 3, 3)}


def test_names_are_registered() -> None:
    assert set(NAMES) <= set(timm.list_models("san*"))
    assert not set(NAMES) & set(timm.list_models(pretrained=True))


@pytest.mark.parametrize("name", NAMES)
def test_create_model(name: str) -> None:
    """The name's network and no other, without weights."""
    with torch.device("meta"):
        model = timm.create_model(name)
        plain = SelfAttentionClassifier(int(name[3:5]), name[6:])
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    assert model.default_cfg["input_size"] == (3, 224, 224)
    assert model.get_submodule(model.default_cfg["first_conv"]).weight.shape == (64, 3, 1, 1)
    assert model.get_submodule(model.default_cfg["classifier"]) is model.get_classifier()
    with pytest.raises(ValueError, match=f"{name} has no pretrained weights yet"):
        timm.create_model(name, pretrained=True)


@pytest.mark.parametrize("out_indices", [(0, 1, 2, 3, 4), (1, 2), (-1,), 2])
def test_features_only(out_indices: int | tuple[int, ...]) -> None:
    """The features of the stages, which are all that is kept."""
    torch.manual_seed(0)
    model = timm.create_model("san10_patchwise", features_only=True, out_indices=out_indices, in_chans=1, **SMALL)
    indices = [3, 4] if out_indices == 2 else [index % 5 for index in out_indices]
    plain = SelfAttentionNetwork(10, "patchwise", in_channels=1, out_indices=indices, **SMALL).eval()
    plain.load_state_dict(model.model.network.state_dict())
    image = torch.randn(2, 1, 64, 96)
    for output, expected in zip(model.eval()(image), plain(image), strict=True):
        torch.testing.assert_close(output, expected)
    assert model.feature_info.channels() == list(plain.out_channels)
    assert model.feature_info.reduction() == list(plain.out_strides)
    assert len(model.model.network.stages) == max(indices) + 1


def test_head() -> None:
    """timm's way from an image to features, logits and other classes."""
    model = timm.create_model("san10_pairwise", num_classes=5, drop_rate=0.5, **SMALL).eval()
    image = torch.randn(2, 3, 64, 64)
    features = model.forward_features(image)
    assert features.shape == (2, 64, 2, 2)
    torch.testing.assert_close(model(image), model.forward_head(features))
    assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)
    last, intermediates = model.forward_intermediates(image, indices=(0, 2))
    torch.testing.assert_close(last, features)
    assert [item.shape[-1] for item in intermediates] == [32, 8]
    stage, first = model.forward_intermediates(image, indices=(0, 2), stop_early=True)
    torch.testing.assert_close([stage, *first], [intermediates[1], *intermediates])
    assert len(model.forward_intermediates(image, intermediates_only=True)) == 5
    model.reset_classifier(7)
    assert model(image).shape == (2, 7)
    model.reset_classifier(0, "")
    torch.testing.assert_close(model(image), features)
    with pytest.raises(ValueError, match="global_pool must be 'avg'"):
        model.reset_classifier(7, "max")


@pytest.mark.parametrize(("indices", "stages"), [((0, 2), [0, 2]), (2, [1, 2]), (None, [0, 1, 2]), ([-1], [2])])
def test_pruned_features(indices: Any, stages: list[int]) -> None:
    """Pruned to three stages, a model returns the features that it returned before, and takes smaller images."""
    model = timm.create_model("san10_patchwise", num_classes=5, **SMALL).eval()
    image = torch.randn(1, 3, 64, 64)
    every = model.forward_intermediates(image, intermediates_only=True)
    assert model.prune_intermediate_layers((1, 2)) == [1, 2]
    last, features = model.forward_intermediates(image, indices)
    torch.testing.assert_close(last, every[2])
    torch.testing.assert_close(features, [every[stage] for stage in stages])
    assert model(image).shape == (1, model.num_features) == (1, 32)
    assert model.network.min_size == 8
    assert model.forward_intermediates(image[..., :8, :8])[0].shape == (1, 32, 1, 1)
    for wrong in (4, 0, [3], []):
        with pytest.raises(ValueError, match="indices must refer to 3 stages, got"):
            model.forward_intermediates(image, wrong)


def test_layer_decay() -> None:
    """A transition has the learning rate of its stage's first block, a norm that of the last one."""
    model = timm.create_model("san10_patchwise", num_classes=5, **SMALL)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = timm.optim.param_groups_layer_decay(model, layer_decay=0.5)
    scales = {names[id(parameter)]: group["lr_scale"] for group in groups for parameter in group["params"]}
    assert set(scales) == set(names.values())
    blocks = [2, 1, 2, 4, 1]
    for stage in range(5):
        first, last = 0.5 ** sum(blocks[stage:]), 0.5 ** (1 + sum(blocks[stage + 1 :]))
        prefix = f"network.stages.{stage}"
        assert scales[f"{prefix}.transition.weight"] == scales[f"{prefix}.blocks.0.norm1.bias"] == first
        assert scales[f"{prefix}.norm.weight"] == last
        assert scales[f"{prefix}.blocks.{blocks[stage] - 1}.expansion.weight"] == last
    assert scales["network.stem.0.weight"] == 0.5 ** (1 + sum(blocks))
    assert scales["head.weight"] == 1
    coarse = timm.models.group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    assert [coarse[f"network.stages.{stage}.transition.weight"] for stage in range(5)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("output_stride", "reductions", "dilations"),
    [(32, [2, 4, 8, 16, 32], [1] * 5), (16, [2, 4, 8, 16, 16], [1, 1, 1, 1, 2]), (8, [2, 4, 8, 8, 8], [1, 1, 1, 2, 4])],
)
def test_output_stride(output_stride: int, reductions: list[int], dilations: list[int]) -> None:
    """Stages dilate their footprints instead of pooling; a checkpoint of the ordinary network fits."""
    model = timm.create_model("san10_patchwise", features_only=True, output_stride=output_stride, **SMALL)
    assert model.feature_info.reduction() == reductions
    network = model.model.network
    assert [stage.blocks[0].attention.dilation for stage in network.stages] == [(each, each) for each in dilations]
    assert [features.shape[-1] for features in model(torch.randn(2, 3, 64, 64))] == [64 // each for each in reductions]
    network.load_state_dict(SelfAttentionNetwork(10, "patchwise", **SMALL).state_dict())


def test_norm_options() -> None:
    """In every norm, those of the mappings too."""
    model = timm.create_model("san10_pairwise", bn_eps=1e-3, bn_momentum=0.2, **SMALL)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.2)}


@pytest.mark.parametrize(
    ("option", "value", "fragments"),
    [
        ("drop_path_rate", 0.1, ["must be 0", "no stochastic depth", "drop_rate"]),
        ("img_size", 384, ["must be None", "images of every size", "position_image_size"]),
        ("output_stride", 12, ["one of 2, 4, 8, 16, 32"]),
    ],
)
def test_options_that_explain(option: str, value: float, fragments: list[str]) -> None:
    with pytest.raises(ValueError, match=option) as caught:
        timm.create_model("san10_pairwise", **{option: value}, **SMALL)
    for fragment in (repr(value), *fragments):
        assert fragment in str(caught.value)
    timm.create_model("san10_pairwise", drop_path_rate=0.0, img_size=None, output_stride=32, **SMALL)


def test_checkpointing_reaches_every_stage() -> None:
    model = timm.create_model("san10_pairwise", **SMALL)
    model.set_grad_checkpointing()
    assert all(stage.with_cp for stage in model.network.stages)


def test_checkpoint(tmp_path: object) -> None:
    """timm loads the checkpoint of a plain network."""
    plain = SelfAttentionClassifier(10, "patchwise", num_classes=3, **SMALL).eval()
    torch.save(plain.state_dict(), f"{tmp_path}/san10.pth")
    model = timm.create_model("san10_patchwise", num_classes=3, checkpoint_path=f"{tmp_path}/san10.pth", **SMALL).eval()
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(model(image), plain(image))


def test_timm_is_imported_on_demand(run_python: Callable[..., CompletedProcess[str]]) -> None:
    """By the registry's module alone, which says what is missing where timm is not there."""
    code = """
import sys
import sa_layers.models
print("timm" in sys.modules)
sys.modules["timm"] = None
try:
    import sa_layers.models.timm_registry
except ModuleNotFoundError as error:
    print(error)
"""
    assert run_python(code).stdout.splitlines()[-2:] == [
        "False",
        "sa_layers.models.timm_registry needs timm, which is not installed: pip install 'sa-layers[timm]'",
    ]
