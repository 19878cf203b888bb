"""peft's LoRA adapters on the 1x1 convolutions of blocks: trained, saved, loaded and merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sa_layers.ops import fused

from .networks import IMAGE, classifier, evaluate, train_step

peft = pytest.importorskip("peft")

TARGETS = ["query", "key", "value", "expansion"]
CONFIG: dict[str, Any] = {"r": 4, "lora_alpha": 16, "target_modules": TARGETS}


def result_of(model: nn.Module) -> Tensor:
    """What an evaluation computes, which is what the modules compute one by one."""
    with torch.no_grad():
        result = model.eval()(IMAGE)
        with fused(False):
            torch.testing.assert_close(result, model(IMAGE), rtol=1e-4, atol=1e-4)
    return result


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_round_trip(attention: str, tmp_path: Path) -> None:
    """Every step gives the same output as the one before, except that of training."""
    before = evaluate(classifier(attention), attention)
    adapted = peft.get_peft_model(classifier(attention), peft.LoraConfig(**CONFIG))
    torch.testing.assert_close(result_of(adapted), before, rtol=1e-4, atol=1e-4)  # a new adapter adds zero

    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert len(trained) == 2 * len(TARGETS) * 6  # two matrices for each target of six blocks
    assert all("lora_" in name for name in trained)
    for norm in adapted.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 0.0  # running statistics are no part of an adapter
    optimizer = torch.optim.SGD(adapted.parameters(), lr=0.03)
    for seed in range(2):
        train_step(adapted, optimizer, seed)
    after = result_of(adapted)
    assert (after - before).abs().max() > 1e-3

    adapted.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(classifier(attention), tmp_path)
    torch.testing.assert_close(result_of(loaded), after)
    with loaded.disable_adapter():
        torch.testing.assert_close(result_of(loaded), before, rtol=1e-4, atol=1e-4)
    loaded.merge_adapter()
    torch.testing.assert_close(result_of(loaded), after, rtol=1e-4, atol=1e-4)
    loaded.unmerge_adapter()
    torch.testing.assert_close(result_of(loaded), after, rtol=1e-4, atol=1e-4)
    merged = loaded.merge_and_unload()
    torch.testing.assert_close(evaluate(merged, attention), after, rtol=1e-4, atol=1e-4)

    others = peft.get_peft_model(classifier(attention), peft.LoraConfig(**CONFIG))
    adapter = {name: tensor for name, tensor in adapted.state_dict().items() if "lora_" in name}
    missing, unexpected = others.load_state_dict(adapter, strict=False)
    assert missing
    assert not unexpected
    torch.testing.assert_close(result_of(others), after)
