"""timm.create_model(..., features_only=True): stages by name, and checkpoints of whole models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("timm")

import timm
import timm.models

import sa_layers.models.timm_registry  # noqa: F401
from sa_layers.checkpoints import load_checkpoint
from sa_layers.models import SelfAttentionClassifier
from tests.checkpoints.official import official, official_state, save_official

__all__ = ["official", "official_state", "save_official"]

SMALL: dict[str, Any] = {"widths": (32, 32, 32, 32, 64), "kernel_sizes": (3, 3, 3, 3, 3)}
IMAGE = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def create(**options: Any) -> Any:
    return timm.create_model("san10_patchwise", features_only=True, **SMALL, **options).eval()


def same(model: Any, expected: list[torch.Tensor]) -> bool:
    with torch.no_grad():
        return all(torch.equal(*pair) for pair in zip(model(IMAGE), expected, strict=True))


def test_return_layers() -> None:
    """Assigned as transformers does: more stages, by name; those that were dropped are ignored."""
    model = create(out_indices=(1, 3))
    usual = model.return_layers
    assert usual == {"network.stages.1": "1", "network.stages.3": "3"}
    second, fourth = model(IMAGE)
    model.return_layers = {entry["module"]: str(index) for index, entry in enumerate(model.feature_info.info)}
    every = model(IMAGE)
    assert [features.shape[-1] for features in every] == [32, 16, 8, 4]
    torch.testing.assert_close([every[1], every[3]], [second, fourth])
    model.return_layers = {"layer1": "0"}
    with pytest.raises(ValueError, match=r"return_layers must name a stage from 'network\.stages\.0' .*\['layer1'\]"):
        model(IMAGE)
    model.return_layers = usual
    torch.testing.assert_close(model(IMAGE), [second, fourth])


@pytest.mark.parametrize(("prefix", "out_indices"), [("", (1, 2)), ("module.", (0, 1, 2, 3, 4)), ("_orig_mod.", (3,))])
def test_checkpoint_of_a_whole_model(tmp_path: Path, prefix: str, out_indices: tuple[int, ...]) -> None:
    """``checkpoint_path`` and other ways to load it take the file of a classifier."""
    classifier, path = SelfAttentionClassifier(10, "patchwise", num_classes=3, **SMALL).eval(), tmp_path / "san10.pth"
    torch.save({prefix + name: values for name, values in classifier.state_dict().items()}, path)
    classifier.network.out_indices = out_indices
    with torch.no_grad():
        expected = list(classifier.network(IMAGE))
    for load in (timm.models.load_checkpoint, load_checkpoint):
        model = create(out_indices=out_indices)
        load(model, str(path))
        assert same(model, expected)
    model = create(out_indices=out_indices, checkpoint_path=str(path))
    assert same(model, expected)
    again = create(out_indices=out_indices)
    again.load_state_dict(model.state_dict())
    assert same(again, expected)


def test_checkpoint_of_the_authors(tmp_path: Path, save_official: Callable[..., Any]) -> None:
    save_official(tmp_path / "san10.pth", 10, "patchwise")
    classifier = SelfAttentionClassifier(10, "patchwise", num_classes=10).eval()
    load_checkpoint(classifier, tmp_path / "san10.pth")
    model = timm.create_model("san10_patchwise", features_only=True, checkpoint_path=str(tmp_path / "san10.pth"))
    with torch.no_grad():
        assert torch.equal(model.eval()(IMAGE)[-1], classifier.network(IMAGE)[-1])


def test_checkpoint_of_another_network(tmp_path: Path) -> None:
    """Raises an error instead of leaving random weights."""
    path = tmp_path / "other.pth"
    torch.save(SelfAttentionClassifier((1, 1, 1, 1, 1), "patchwise", **SMALL).state_dict(), path)
    with pytest.raises(RuntimeError, match="the checkpoint has another depth"):
        create(checkpoint_path=str(path))
    torch.save({"conv1.weight": torch.ones(1)}, path)
    with pytest.raises(RuntimeError, match="the checkpoint has no tensor of this backbone"):
        create(checkpoint_path=str(path))
