"""A small classifier, a step of its training, and what its modules compute one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sa_layers.models import SelfAttentionClassifier
from sa_layers.ops import extension, fused

SMALL: dict[str, Any] = {"depth": (1, 1, 2, 1, 1), "widths": (32, 32, 64, 64, 64), "kernel_sizes": (3,) * 5}
CLASSES = 5
IMAGE = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def classifier(attention: str = "pairwise", **options: Any) -> SelfAttentionClassifier:
    """Make the same classifier at every call, in evaluation mode."""
    torch.manual_seed(0)
    return SelfAttentionClassifier(attention=attention, num_classes=CLASSES, **SMALL | options).eval()


def train_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int = 0) -> None:
    """Train with two images of noise, then return to evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(2, 3, 64, 64, generator=generator)
    optimizer.zero_grad()
    F.cross_entropy(model.train()(images), torch.tensor([seed % CLASSES, 1])).backward()
    optimizer.step()
    model.eval()


def one_by_one(state: Mapping[str, Tensor], attention: str, **options: Any) -> Tensor:
    """What the modules of a new classifier compute with these tensors."""
    model = classifier(attention, **options)
    model.load_state_dict(state)
    with torch.no_grad(), fused(False):
        return model(IMAGE)


def evaluate(model: SelfAttentionClassifier, attention: str, **options: Any) -> Tensor:
    """Evaluate by the fused path, and compare with the modules of a new classifier that has the same tensors."""
    with torch.no_grad():
        assert extension.why_not() or model.network.why_not_fused(IMAGE) is None
        result = model(IMAGE)
    expected = one_by_one(model.state_dict(), attention, **options)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    return result
