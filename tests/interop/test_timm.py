"""timm's own helpers: training, averaged weights, checkpoints saved and loaded, features of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("timm")

import timm
import timm.models
import timm.optim
import timm.utils

import sa_layers.models.timm_registry  # noqa: F401
from sa_layers.ops import extension, fused

from .networks import CLASSES, IMAGE, SMALL, train_step

OPTIONS: dict[str, Any] = {name: SMALL[name] for name in ("widths", "kernel_sizes")}


def create(attention: str, **options: Any) -> Any:
    """Make a model of timm's registry with random weights, in evaluation mode."""
    return timm.create_model(f"san10_{attention}", **{"num_classes": CLASSES} | OPTIONS | options).eval()


def evaluate(model: Any) -> torch.Tensor:
    """Evaluate by the fused path, and compare with the modules one by one."""
    with torch.no_grad():
        assert extension.why_not() or model.network.why_not_fused(IMAGE) is None
        result = model(IMAGE)
        with fused(False):
            torch.testing.assert_close(result, model(IMAGE), rtol=1e-4, atol=1e-4)
    return result


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_checkpoints(attention: str, tmp_path: Path) -> None:
    torch.manual_seed(2)  # after a few steps of noise, other random weights can overflow in evaluation
    model = create(attention)
    optimizer = timm.optim.create_optimizer_v2(model, opt="sgd", lr=0.01, momentum=0.9, layer_decay=0.9)
    average = timm.utils.ModelEmaV3(model, decay=0.5)
    for seed in range(2):
        train_step(model, optimizer, seed)
        average.update(model, step=seed + 2)
    saver = timm.utils.CheckpointSaver(model, optimizer, model_ema=average, checkpoint_dir=str(tmp_path))
    saver.save_checkpoint(epoch=0, metric=1.0)
    path = str(tmp_path / "last.pth.tar")
    trained, averaged = evaluate(model), evaluate(average.module)
    assert (trained - averaged).abs().max() > 1e-3

    other = create(attention)
    evaluate(other)
    timm.models.load_checkpoint(other, path, use_ema=False)
    assert torch.equal(evaluate(other), trained)
    timm.models.load_checkpoint(other, path, use_ema=True)
    assert torch.equal(evaluate(other), averaged)
    assert torch.equal(evaluate(create(attention, checkpoint_path=path)), averaged)

    again = timm.optim.create_optimizer_v2(other, opt="sgd", lr=0.01, momentum=0.9, layer_decay=0.9)
    assert timm.models.resume_checkpoint(other, path, again, log_info=False) == 1
    assert torch.equal(evaluate(other), trained)
    for one in (model, other):
        train_step(one, optimizer if one is model else again, seed=2)
    torch.testing.assert_close(evaluate(other), evaluate(model))


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_pretrained_file(attention: str, name: str, tmp_path: Path) -> None:
    """A file of weights, for another number of classes and for the features alone."""
    model, path = create(attention), tmp_path / name
    if path.suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    file = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path), "num_classes": CLASSES}}
    assert torch.equal(evaluate(create(attention, **file)), evaluate(model))
    features = model.forward_features(IMAGE)
    torch.testing.assert_close(create(attention, **file, num_classes=3).forward_features(IMAGE), features)
    extractor = timm.create_model(f"san10_{attention}", features_only=True, **OPTIONS, **file).eval()
    with torch.no_grad():
        for result, expected in zip(extractor(IMAGE), model.network(IMAGE)[-1:], strict=False):
            assert result.shape[0] == expected.shape[0]
        torch.testing.assert_close(extractor(IMAGE)[-1], features, rtol=1e-4, atol=1e-4)
