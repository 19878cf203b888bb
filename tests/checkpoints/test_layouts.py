"""Every layout loads into every network, by load_state_dict, load_checkpoint and timm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sa_layers.checkpoints import MismatchError, load_checkpoint, rename
from sa_layers.checkpoints.layouts import Layout, find_layouts
from sa_layers.models import SelfAttentionClassifier, SelfAttentionNetwork

SMALL: dict[str, Any] = {"depth": (1,) * 5, "widths": (32,) * 5, "kernel_sizes": (3,) * 5}
ATTENTIONS = ("pairwise", "patchwise")
Names = Callable[[str], str]


def classifier(attention: str) -> SelfAttentionClassifier:
    return SelfAttentionClassifier(attention=attention, num_classes=3, **SMALL)


@pytest.fixture(scope="session")
def official_name(official: ModuleType) -> Names:
    """From the name of a tensor in a network of ours to the official one, without the code under test."""
    modules = {}
    for attention in ATTENTIONS:
        for name in official.official_shapes(attention, 19):
            module = name.rpartition(".")[0]
            modules[official.our_name(f"{module}.weight").removesuffix(".weight")] = module

    def translate(name: str) -> str:
        module, _, tensor = name.rpartition(".")
        return f"{modules[module]}.{tensor}"

    return translate


@pytest.fixture(params=["ours", "alone", "openmmlab", "official", "in DataParallel", "in a student", "compiled"])
def saved(request: pytest.FixtureRequest, official_name: Names) -> Callable[[nn.Module], dict[str, Tensor]]:
    """Write the state dict of a classifier in one of the layouts."""

    def renamed(model: nn.Module) -> dict[str, Tensor]:
        state = {}
        for name, values in model.state_dict().items():
            inside, head = name.removeprefix("network."), name.removeprefix("head.")
            is_head = head != name
            names = {
                "ours": name,
                "alone": name if is_head else inside,
                "openmmlab": f"head.fc.{head}" if is_head else f"backbone.{inside}",
                "official": f"fc.{head}" if is_head else official_name(inside),
            }
            names["in DataParallel"] = f"module.{names['official']}"
            names["in a student"] = f"student.{names['openmmlab']}"
            names["compiled"] = f"_orig_mod.{name}"
            state[names[request.param]] = values
        return state

    return renamed


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_state_dicts(attention: str, saved: Callable[..., Any]) -> None:
    """load_state_dict of a network and a classifier; a network has no place for the head."""
    model, loaded = classifier(attention), classifier(attention)
    state = saved(model)
    loaded.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    network = SelfAttentionNetwork(attention=attention, **SMALL)
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert missing == []
    assert len(unexpected) == 2
    assert all(torch.equal(a, b) for a, b in zip(model.network.parameters(), network.parameters(), strict=True))


def test_files(saved: Callable[..., Any], tmp_path: Path) -> None:
    """load_checkpoint of both, and of a network inside another module."""
    model, loaded = classifier("pairwise"), classifier("pairwise")
    torch.save({"state_dict": saved(model)}, tmp_path / "checkpoint.pth")
    load_checkpoint(loaded, tmp_path / "checkpoint.pth")
    assert torch.equal(loaded.head.weight, model.head.weight)
    network = SelfAttentionNetwork(**SMALL)
    inside = nn.ModuleDict({"encoder": SelfAttentionNetwork(**SMALL)})
    load_checkpoint(network, tmp_path / "checkpoint.pth")
    load_checkpoint(inside, tmp_path / "checkpoint.pth")
    for copy in (loaded.network, network, inside["encoder"]):
        assert all(torch.equal(a, b) for a, b in zip(model.network.parameters(), copy.parameters(), strict=True))


def test_timm(saved: Callable[..., Any], tmp_path: Path) -> None:
    """By checkpoint_path, and as pretrained weights with another head."""
    timm = pytest.importorskip("timm")
    import sa_layers.models.timm_registry  # noqa: F401

    model, small = classifier("patchwise"), {name: SMALL[name] for name in ("widths", "kernel_sizes")}
    path = tmp_path / "checkpoint.pth"
    model.network = SelfAttentionNetwork(10, "patchwise", **small)
    torch.save({"state_dict": saved(model)}, path)
    loaded = timm.create_model("san10_patchwise", num_classes=3, checkpoint_path=path, **small)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    overlay = {"file": str(path), "num_classes": 3}
    tuned = timm.create_model(
        "san10_patchwise", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=7, in_chans=1, **small
    )
    assert tuned.head.weight.shape == (7, 32)
    assert torch.equal(tuned.network.stages[3].transition.weight, model.network.stages[3].transition.weight)
    with pytest.raises(ValueError, match="has no pretrained weights yet"):
        timm.create_model("san10_patchwise", pretrained=True)


@pytest.mark.parametrize(
    ("names", "layouts"),
    [
        (["backbone.stages.2.norm.weight", "head.fc.weight"], [Layout("backbone.", "head.fc.")]),
        (["a.backbone.stem.1.bias", "a.head.fc.bias", "head.weight"], [Layout("a.backbone.", "a.head.fc.")]),
        (["network.stem.0.weight", "head.weight"], [Layout("network.", "head.")]),
        (["layer2.0.sam.conv_w.3.bias"], [Layout("", None, True)]),
        (["student.stem.0.weight", "teacher.stem.0.weight"], [Layout("student.", None), Layout("teacher.", None)]),
        (["conv1.weight", "layer1.0.conv1.weight", "fc.weight"], []),  # a ResNet
        (["stem.conv.weight", "stages.0.0.weight"], []),
        (["system.0.weight", "upstages.0.norm.weight"], []),
    ],
)
def test_layouts_are_found(names: list[str], layouts: list[Layout]) -> None:
    assert find_layouts(names) == layouts


def test_other_tensors_keep_their_names() -> None:
    """Necks, and the tensors of several networks, of which none can be chosen."""
    tensors = dict.fromkeys(("neck.conv.weight", "backbone.stem.0.weight", "head.fc.bias"), torch.ones(1))
    assert list(rename(tensors, "network.", "head.")) == ["neck.conv.weight", "network.stem.0.weight", "head.bias"]
    both = dict.fromkeys(("student.stem.0.weight", "teacher.stem.0.weight"), torch.ones(1))
    assert list(rename(both)) == list(both)


def test_files_of_other_models(tmp_path: Path) -> None:
    """The message names the file and what differs; the model is unchanged."""
    model = classifier("pairwise")
    before = {name: values.clone() for name, values in model.state_dict().items()}
    path = tmp_path / "checkpoint.pth"
    state = model.state_dict()
    deeper = SelfAttentionClassifier(**SMALL | {"depth": (1, 1, 2, 1, 1)}, num_classes=3)
    cases = {
        r"of \d+ tensors, 1 are missing: head.bias": {k: v + 1 for k, v in state.items() if k != "head.bias"},
        r"head.weight is \(4, 32\) instead of \(3, 32\)": state | {"head.weight": torch.ones(4, 32)},
        "is for patchwise": classifier("patchwise").state_dict(),
        r"have \(1, 1, 2, 1, 1\) blocks": deeper.state_dict(),
        "only a part of some layers": {k: v for k, v in state.items() if "stages.4" not in k or "norm" not in k},
        "exception occurred": state | {"head.weight": torch.ones(3, 32).to_sparse()},
        "are missing: network.stem.0.weight": {"conv1.weight": torch.ones(3)},
    }
    for message, other in cases.items():
        torch.save(other, path)
        with pytest.raises(MismatchError, match=rf"checkpoint\.pth belongs to another model: .*{message}"):
            load_checkpoint(model, path)
        assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items()), message
