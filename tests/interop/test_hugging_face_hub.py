"""The Hugging Face hub: networks saved to a folder and loaded from it, without a network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("huggingface_hub")
pytest.importorskip("safetensors")

from huggingface_hub import PyTorchModelHubMixin

from sa_layers.models import SelfAttentionClassifier

from .networks import IMAGE, SMALL


class HubClassifier(SelfAttentionClassifier, PyTorchModelHubMixin):
    """A classifier with the hub's methods."""


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_mixin(attention: str, tmp_path: Path) -> None:
    """The folder holds the arguments of the constructor, also those that are passed on, and the weights."""
    model = HubClassifier(attention=attention, num_classes=3, share=4, **SMALL).eval()
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert (saved["attention"], saved["num_classes"], saved["share"]) == (attention, 3, 4)
    assert (tmp_path / "model.safetensors").is_file()
    loaded = HubClassifier.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(loaded(IMAGE), model(IMAGE))


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_timm(attention: str, tmp_path: Path) -> None:
    """timm's own folder of a model, and its 'local-dir:' names."""
    timm = pytest.importorskip("timm")
    import sa_layers.models.timm_registry  # noqa: F401

    options = {name: SMALL[name] for name in ("widths", "kernel_sizes")}
    model = timm.create_model(f"san10_{attention}", num_classes=3, **options).eval()
    timm.models.save_for_hf(model, tmp_path, model_args=options, safe_serialization=True)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    features = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, features_only=True).eval()
    with torch.no_grad():
        assert torch.equal(loaded(IMAGE), model(IMAGE))
        assert torch.equal(features(IMAGE)[-1], model.forward_features(IMAGE))
