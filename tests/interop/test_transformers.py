"""transformers: detectors and segmenters with a backbone by timm's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("timm")

import transformers

import sa_layers.models.timm_registry  # noqa: F401
from sa_layers.checkpoints import load_checkpoint
from sa_layers.models import SelfAttentionClassifier

from .networks import SMALL

OPTIONS: dict[str, Any] = {name: SMALL[name] for name in ("widths", "kernel_sizes")}
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
BOXES = [{"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.3, 0.4]])}] * 2
HEAD: dict[str, Any] = {"d_model": 16, "num_queries": 5, "encoder_layers": 1, "decoder_layers": 1, "num_labels": 3}
HEAD |= {f"{part}_attention_heads": 2 for part in ("encoder", "decoder")}
HEAD |= {f"{part}_ffn_dim": 16 for part in ("encoder", "decoder")}


def backbone(attention: str, **options: Any) -> Any:
    return transformers.TimmBackboneConfig(f"san10_{attention}", use_pretrained_backbone=False, **options)


def detr(attention: str) -> tuple[Any, dict[str, Any]]:
    configuration = transformers.DetrConfig(
        use_timm_backbone=True,
        backbone=f"san10_{attention}",
        use_pretrained_backbone=False,
        backbone_kwargs={"out_indices": (1, 2, 3, 4), **OPTIONS},
        **HEAD,
    )
    return transformers.DetrForObjectDetection(configuration), {"labels": BOXES}


def rt_detr(attention: str) -> tuple[Any, dict[str, Any]]:
    configuration = transformers.RTDetrConfig(
        backbone_config=backbone(attention, out_indices=(2, 3, 4)),
        encoder_in_channels=[512, 1024, 2048],
        encoder_hidden_dim=16,
        decoder_in_channels=[16] * 3,
        num_denoising=0,
        **HEAD,
    )
    return transformers.RTDetrForObjectDetection(configuration), {"labels": BOXES}


def mask_former(attention: str) -> tuple[Any, dict[str, Any]]:
    configuration = transformers.MaskFormerConfig(
        backbone_config=backbone(attention, out_indices=(1, 2, 3, 4)),
        decoder_config=transformers.DetrConfig(**HEAD),
        fpn_feature_size=32,  # of group norms with 32 groups
        mask_feature_size=32,
    )
    labels = {"mask_labels": [torch.ones(1, 64, 64)] * 2, "class_labels": [torch.tensor([1])] * 2}
    return transformers.MaskFormerForInstanceSegmentation(configuration), labels


def uper_net(attention: str) -> tuple[Any, dict[str, Any]]:
    configuration = transformers.UperNetConfig(
        backbone_config=backbone(attention, out_indices=(1, 2, 3, 4)),
        hidden_size=16,
        auxiliary_channels=8,
        auxiliary_in_channels=1024,
        num_labels=3,
    )
    labels = {"labels": torch.zeros(2, 64, 64, dtype=torch.long)}
    return transformers.UperNetForSemanticSegmentation(configuration), labels


@pytest.mark.parametrize(
    ("make", "attention"),
    [
        (detr, "pairwise"),
        (detr, "patchwise"),
        (rt_detr, "patchwise"),
        (mask_former, "pairwise"),
        (uper_net, "patchwise"),
    ],
)
def test_trains(make: Any, attention: str) -> None:
    """A step, with a gradient in every parameter of the backbone."""
    torch.manual_seed(0)
    model, labels = make(attention)
    loss = model.train()(IMAGES, **labels).loss
    loss.backward()
    assert loss.isfinite()
    inside = [parameter for name, parameter in model.named_parameters() if ".network." in name]
    assert len(inside) > 50
    assert all(parameter.grad is not None for parameter in inside)


def test_hidden_states() -> None:
    """A backbone returns the features of the stages up to its last one, and those that it was asked for."""
    model = transformers.TimmBackbone(backbone("patchwise", out_indices=(1, 3)), **OPTIONS).eval()
    plain = model(IMAGES).feature_maps
    outputs = model(IMAGES, output_hidden_states=True)
    assert [features.shape[-1] for features in outputs.hidden_states] == [32, 16, 8, 4]
    torch.testing.assert_close(outputs.feature_maps, plain)
    torch.testing.assert_close(outputs.feature_maps, (outputs.hidden_states[1], outputs.hidden_states[3]))
    assert model.channels == [32, 64]
    torch.testing.assert_close(model(IMAGES).feature_maps, plain)


def test_weights_of_a_classifier(tmp_path: Path) -> None:
    """Loaded after the model is built: DETR draws the weights of its backbone anew when it is."""
    classifier, path = SelfAttentionClassifier(10, "patchwise", **OPTIONS), tmp_path / "san10.pth"
    torch.save(classifier.state_dict(), path)
    model, _ = detr("patchwise")
    features = model.model.backbone.conv_encoder.model
    load_checkpoint(features, path)
    state = features.state_dict()
    for name, values in classifier.network.state_dict().items():
        assert name.endswith("num_batches_tracked") or torch.equal(values, state[f"model.network.{name}"])


def test_saved_and_loaded(tmp_path: Path) -> None:
    """save_pretrained and from_pretrained of a folder, without a network."""
    model, _ = detr("pairwise")
    model.save_pretrained(tmp_path)
    loaded = transformers.DetrForObjectDetection.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(IMAGES).logits, model.eval()(IMAGES).logits)
