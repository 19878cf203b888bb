"""The networks as timm's users know models: by name, with timm's arguments and methods."""

from __future__ import annotations

from collections.abc import Callable
from subprocess import CompletedProcess

import pytest
import torch

pytest.importorskip("timm")

import timm

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
    model.reset_classifier(7)
    assert model(image).shape == (2, 7)
    model.reset_classifier(0, "")
    torch.testing.assert_close(model(image), features)
    with pytest.raises(ValueError, match="global_pool must be 'avg'"):
        model.reset_classifier(7, "max")


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
