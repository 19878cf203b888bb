"""The networks with a head, in plain torch."""

from __future__ import annotations

import pytest
import torch

from sa_layers.models import SelfAttentionClassifier

from .test_official_network import PARAMETERS

SMALL = {"depth": (1, 1, 1, 1, 1), "widths": (32, 32, 32, 32, 64), "kernel_sizes": (3, 3, 3, 3, 3)}


@pytest.mark.parametrize(("depth", "attention"), PARAMETERS)
def test_parameters(depth: int, attention: str) -> None:
    """Those of the README's table, the official networks' with a head of 1000 classes."""
    with torch.device("meta"):
        model = SelfAttentionClassifier(depth, attention)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[depth, attention]


def test_logits() -> None:
    """The mean over the map, then the linear layer."""
    model = SelfAttentionClassifier(num_classes=5, in_channels=1, **SMALL).eval()
    image = torch.randn(2, 1, 64, 96)
    features = model.network(image)[-1]
    logits = model(image)
    assert logits.shape == (2, 5)
    torch.testing.assert_close(logits, model.head(features.mean((2, 3))))
    torch.testing.assert_close(model.forward_head(features, pre_logits=True), features.mean((2, 3)))


def test_reset_classifier() -> None:
    model = SelfAttentionClassifier(num_classes=5, **SMALL).eval()
    image = torch.randn(2, 3, 64, 64)
    model.reset_classifier(7)
    assert model(image).shape == (2, 7)
    model.reset_classifier(0)
    assert model(image).shape == (2, 64)
    with pytest.raises(ValueError, match=r"num_classes must not be negative, got -1"):
        model.reset_classifier(-1)


def test_dropout() -> None:
    """In training only, and of the features, not of the logits."""
    model = SelfAttentionClassifier(num_classes=5, dropout=1.0, **SMALL)
    image = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(image), model.head.bias.expand(2, 5))
    assert (model.eval()(image) - model.head.bias).abs().max() > 0
