"""segmentation_models_pytorch: its architectures train with our encoders, by timm's names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("segmentation_models_pytorch")

import segmentation_models_pytorch as smp

from sa_layers.models import SelfAttentionClassifier
from sa_layers.ops import extension

from .networks import SMALL

OPTIONS: dict[str, Any] = {name: SMALL[name] for name in ("widths", "kernel_sizes")}
ARCHITECTURES: list[tuple[str, dict[str, Any]]] = [
    ("Unet", {}),
    ("UnetPlusPlus", {"encoder_depth": 4, "decoder_channels": (64, 32, 16, 16)}),
    ("Linknet", {}),
    ("FPN", {}),
    ("PSPNet", {}),
    ("UPerNet", {}),
    ("DeepLabV3", {}),
    ("DeepLabV3Plus", {"encoder_output_stride": 16}),
    ("DeepLabV3Plus", {"encoder_output_stride": 8}),
    ("PAN", {"encoder_output_stride": 16}),
    ("Segformer", {}),
]
DEFAULT_STRIDES = {"UnetPlusPlus": 16, "PSPNet": 8, "DeepLabV3": 8}  # the first two have fewer stages here


@pytest.mark.parametrize(("architecture", "options"), ARCHITECTURES)
def test_trains(architecture: str, options: dict[str, Any]) -> None:
    """A step with the stride that the decoder asks for: every parameter has a gradient, and the encoder is fused."""
    torch.manual_seed(0)
    attention = "pairwise" if architecture in ("Unet", "UPerNet", "DeepLabV3Plus") else "patchwise"
    model = getattr(smp, architecture)(f"tu-san10_{attention}", encoder_weights=None, classes=3, **options, **OPTIONS)
    image = torch.randn(2, 3, 128, 128) if architecture == "PAN" else torch.randn(2, 3, 64, 64)
    logits = model(image)
    assert logits.shape == (2, 3, *image.shape[-2:])
    loss = F.cross_entropy(logits, torch.randint(0, 3, (2, *image.shape[-2:])))
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad is not None for parameter in model.parameters())
    network = model.encoder.model.model.network
    assert network.out_strides[-1] == options.get("encoder_output_stride", DEFAULT_STRIDES.get(architecture, 32))
    assert extension.why_not() or network.why_not_fused(image) is None


def test_weights_of_a_classifier(tmp_path: Path) -> None:
    """``checkpoint_path`` reaches timm, which takes a file in any layout."""
    classifier, path = SelfAttentionClassifier(10, "patchwise", **OPTIONS), tmp_path / "san10.pth"
    torch.save(classifier.state_dict(), path)
    model = smp.Unet("tu-san10_patchwise", encoder_weights=None, checkpoint_path=str(path), **OPTIONS)
    state = model.encoder.model.model.network.state_dict()
    assert all(torch.equal(values, state[name]) for name, values in classifier.network.state_dict().items())
    with pytest.raises(ValueError, match="san10_patchwise has no pretrained weights yet"):
        smp.Unet("tu-san10_patchwise", encoder_weights=True, **OPTIONS)


def test_saved_and_loaded(tmp_path: Path) -> None:
    """save_pretrained and from_pretrained of a folder, without a network."""
    model = smp.FPN("tu-san10_pairwise", encoder_weights=None, classes=2, **OPTIONS).eval()
    model.save_pretrained(tmp_path / "fpn")
    loaded = smp.from_pretrained(tmp_path / "fpn").eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(image), model(image))
