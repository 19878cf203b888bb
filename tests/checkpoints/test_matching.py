"""A part of a network loads with strict=False; what contradicts the network is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sa_layers.checkpoints import MismatchError
from sa_layers.models import SelfAttentionClassifier, SelfAttentionNetwork

SMALL: dict[str, Any] = {"depth": (1, 1, 2, 1, 1), "widths": (32,) * 5, "kernel_sizes": (3,) * 5}
Part = Callable[[str], bool]


def make(kind: str, **options: Any) -> tuple[nn.Module, str]:
    """A model with a network in it, and the prefix of the network."""
    if kind == "network":
        return SelfAttentionNetwork(**SMALL | options), ""
    if kind == "classifier":
        return SelfAttentionClassifier(num_classes=3, **SMALL | options), "network."
    if kind == "backbone":
        pytest.importorskip("mmengine")
        from sa_layers.backbones import SAN

        return SAN(**SMALL | options), ""
    pytest.importorskip("mmengine")
    from sa_layers.backbones import SAN

    return nn.ModuleDict({"backbone": SAN(**SMALL | options), "neck": nn.Linear(2, 2)}), "backbone."


KINDS = ["network", "classifier", *(pytest.param(kind, marks=pytest.mark.openmmlab) for kind in ("backbone", "model"))]
PARTS: dict[str, Part] = {
    "norms": lambda name: "norm" in name,
    "stem": lambda name: "stem" in name,
    "first stages": lambda name: "stem" in name or "stages.0" in name or "stages.1" in name,
    "last stage": lambda name: "stages.4" in name,
    "one block": lambda name: "stages.2.blocks.1" in name,
    "one tensor": lambda name: name.endswith("stages.2.blocks.0.attention.mapping.2.weight"),
    "every third tensor": lambda name: sum(map(ord, name)) % 3 == 0,
    "all but positions": lambda name: ".position." not in name,
    "no attention": lambda name: ".attention." not in name,
    "nothing": lambda name: False,
    "everything": lambda name: True,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", PARTS)
def test_parts(kind: str, part: str) -> None:
    """What is there is loaded, the rest stays as it was."""
    model, _ = make(kind)
    before = {name: values.clone() for name, values in model.state_dict().items()}
    other = {name: values + 1 for name, values in model.state_dict().items() if PARTS[part](name)}
    missing, unexpected = model.load_state_dict(other, strict=False)
    assert unexpected == []
    absent = {name for name in before if name not in other}
    assert {name for name in absent if not name.endswith("num_batches_tracked")} <= set(missing) <= absent
    for name, values in model.state_dict().items():
        assert torch.equal(values, other.get(name, before[name])), name


def deeper(state: dict[str, Tensor], prefix: str) -> None:
    state[f"{prefix}stages.1.blocks.1.expansion.weight"] = torch.ones(32, 8, 1, 1)


def biased(state: dict[str, Tensor], prefix: str) -> None:
    state[f"{prefix}stages.1.transition.bias"] = torch.ones(32)


def wider(state: dict[str, Tensor], prefix: str) -> None:
    state[f"{prefix}stages.3.transition.weight"] = torch.ones(64, 32, 1, 1)


def adapted(state: dict[str, Tensor], prefix: str) -> None:
    state[f"{prefix}stages.1.blocks.0.attention.query.lora_A.weight"] = torch.ones(4, 32, 1, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (deeper, "stages.1.blocks.1.expansion.weight|another depth"),
        (biased, "1 tensor.s. of the checkpoint are not in this backbone: stages.1.transition.bias"),
        (wider, r"stages.3.transition.weight is \(64, 32, 1, 1\) instead of \(32, 32, 1, 1\)"),
        (adapted, "are not in this backbone: stages.1.blocks.0.attention.query.lora_A.weight"),
    ],
)
def test_contradictions(kind: str, strict: bool, change: Callable[..., None], message: str) -> None:
    """Alone and beside the rest of the network. The error is also one of load_state_dict, a RuntimeError."""
    model, prefix = make(kind)
    before = {name: values.clone() for name, values in model.state_dict().items()}
    for state in ({}, dict(model.state_dict())):
        change(state, prefix)
        with pytest.raises(MismatchError, match=message) as caught:
            model.load_state_dict(state, strict=strict)
        assert isinstance(caught.value, RuntimeError)
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())


@pytest.mark.parametrize(
    ("saved", "loading", "message"),
    [
        ({"attention": "pairwise"}, {"attention": "patchwise"}, "is for pairwise .*, but this backbone has patchwise"),
        ({"attention": "patchwise"}, {"attention": "pairwise"}, "is for patchwise .*, but this backbone has pairwise"),
        ({"depth": (1, 1, 3, 1, 1)}, {}, r"have \(1, 1, 3, 1, 1\) blocks, this backbone has \(1, 1, 2, 1, 1\)"),
    ],
)
def test_other_networks(saved: dict[str, Any], loading: dict[str, Any], message: str) -> None:
    state = SelfAttentionNetwork(**SMALL | saved).state_dict()
    with pytest.raises(MismatchError, match=message):
        SelfAttentionNetwork(**SMALL | loading).load_state_dict(state, strict=False)


def test_strict_is_that_of_torch() -> None:
    """With strict=True, torch itself names everything that is missing."""
    model = SelfAttentionNetwork(**SMALL)
    state = {name: values for name, values in model.state_dict().items() if "stages.4" not in name}
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: .stages.4.transition.weight"):
        model.load_state_dict(state)


def test_stages_that_are_not_built() -> None:
    """They are left out of a checkpoint, as are counters that profilers have put into it."""
    whole = SelfAttentionNetwork(**SMALL).state_dict()
    whole |= {"stages.1.transition.total_ops": torch.zeros(1), "total_params": torch.zeros(1)}
    part = SelfAttentionNetwork(**SMALL, out_indices=(1, 2))
    part.load_state_dict(whole, strict=False)
    assert all(torch.equal(values, whole[name]) for name, values in part.state_dict().items())


def test_lazy_norms_and_extra_state() -> None:
    """Parameters without a shape take that of the checkpoint, and entries that are not tensors are left to torch."""
    lazy = SelfAttentionNetwork(**SMALL, norm_layer=lambda channels: nn.LazyBatchNorm2d())
    state = SelfAttentionNetwork(**SMALL).state_dict()
    lazy.load_state_dict(state | {"stages.0.transition._extra_state": None}, strict=False)
    assert torch.equal(lazy.stages[0].norm.weight, state["stages.0.norm.weight"])


class LowRank(nn.Module):
    """A linear layer with an adapter, as peft puts it in the place of the layer."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.base_layer = layer
        self.lora_A = nn.ModuleDict({"default": nn.Conv2d(layer.in_channels, 2, 1, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Conv2d(2, layer.out_channels, 1, bias=False)})

    def forward(self, features: Tensor) -> Tensor:
        return self.base_layer(features) + self.lora_B["default"](self.lora_A["default"](features))


def with_adapters() -> nn.Module:
    torch.manual_seed(0)
    network = SelfAttentionNetwork(**SMALL)
    for block in network.modules():
        if isinstance(getattr(block, "query", None), nn.Conv2d):
            block.query, block.value = LowRank(block.query), LowRank(block.value)
    return nn.ModuleDict({"model": network}).eval()


def test_adapters() -> None:
    """The tensors of adapters alone, into a network that has them; the function is that of the saved network."""
    saved, loaded = with_adapters(), with_adapters()
    for name, parameter in saved.named_parameters():
        if "lora" in name:
            nn.init.normal_(parameter, std=1 / math.sqrt(parameter.shape[1]))
    state = {name: values for name, values in saved.state_dict().items() if "lora" in name}
    missing, unexpected = loaded.load_state_dict(state, strict=False)
    assert unexpected == []
    assert not [name for name in missing if "lora" in name]
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded["model"](image), saved["model"](image), rtol=0, atol=0)
