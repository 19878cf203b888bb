"""Whoever overrides a method or a function that the fused path replaces is obeyed, for as long as it is overridden."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sa_layers.layers import ATTENTIONS, PairwiseSelfAttention, PatchwiseSelfAttention, SelfAttentionBlock
from sa_layers.layers.position import PositionEncoding
from sa_layers.layers.self_attention import SelfAttention
from sa_layers.models import SelfAttentionNetwork
from sa_layers.models.self_attention_stage import SelfAttentionStage
from sa_layers.models.stem import Stem
from sa_layers.ops import extension
from tests.fused.evaluation import SMALL, answer, check_answer, difference, features_for, subject

pytestmark = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
METHODS = ("relate", "map_relation", "attend_unfused", "attend", "transform", "forward")
VISIBLE = 2e-4  # ten times the tolerance
KINDS = ("layer", "block", "stage", "network")


def changed(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with another result."""

    def wrapper(*arguments: Any, **options: Any) -> Any:
        result = function(*arguments, **options)
        return tuple(1.3 * part for part in result) if isinstance(result, tuple) else 1.3 * result + 0.1

    return wrapper


def check_obeyed(module: nn.Module, features: Tensor, before: list[Tensor] | str) -> None:
    """The answer follows the override."""
    after = check_answer(module, features)
    assert after is not None
    assert max(map(difference, after, before)) > VISIBLE


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_method_of_an_instance(attention: str, kind: str, method: str) -> None:
    module, features = subject(f"{attention} {kind}"), features_for(kind)
    before = answer(module, features)
    layer = [part for part in module.modules() if isinstance(part, SelfAttention)][-1]
    setattr(layer, method, changed(getattr(layer, method)))
    check_obeyed(module, features, before)
    delattr(layer, method)
    torch.testing.assert_close(answer(module, features), before, rtol=0, atol=0)


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_method_of_a_subclass(attention: str, kind: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assigned to an instance, and known to blocks by a name."""
    module, features = subject(f"{attention} {kind}"), features_for(kind)
    before = answer(module, features)
    layer = [part for part in module.modules() if isinstance(part, SelfAttention)][-1]
    original = type(layer)
    own = type("Own", (original,), {method: changed(getattr(original, method))})
    monkeypatch.setitem(ATTENTIONS, "own", own)
    layer.__class__ = own
    check_obeyed(module, features, before)


PATCHES: list[tuple[Any, str]] = [
    *((PairwiseSelfAttention, method) for method in METHODS),
    *((SelfAttention, method) for method in ("forward", "attend", "transform")),
    (PositionEncoding, "forward"),
    (SelfAttentionBlock, "forward"),
    (SelfAttentionStage, "forward"),
    (Stem, "forward"),
    *((kind, "forward") for kind in (nn.BatchNorm2d, nn.Conv2d, nn.ReLU, nn.MaxPool2d)),
    *((kind, "__call__") for kind in (nn.Module, nn.BatchNorm2d, nn.Conv2d, nn.ReLU, nn.MaxPool2d)),
    (nn.Conv2d, "_conv_forward"),
    (nn.Module, "_call_impl"),
    *((F, name) for name in ("conv2d", "batch_norm", "relu", "max_pool2d")),
    *((torch, name) for name in ("batch_norm", "relu_", "max_pool2d")),
]


@pytest.mark.parametrize(("owner", "name"), PATCHES)
@torch.no_grad()
def test_patch_of_a_class_or_function(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, features = subject("pairwise network"), features_for("network")
    before = answer(module, features)
    monkeypatch.setattr(owner, name, changed(getattr(owner, name)))
    check_obeyed(module, features, before)
    monkeypatch.undo()
    torch.testing.assert_close(answer(module, features), before, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_patch_of_patchwise_attention(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in KINDS:
        module, features = subject(f"patchwise {kind}"), features_for(kind)
        before = answer(module, features)
        monkeypatch.setattr(PatchwiseSelfAttention, method, changed(getattr(PatchwiseSelfAttention, method)))
        check_obeyed(module, features, before)
        monkeypatch.undo()


@torch.no_grad()
def test_patches_that_only_watch_are_called() -> None:
    """As those of profilers, which count calls."""
    module = SelfAttentionNetwork(**SMALL).eval()
    with mock.patch.object(nn.Conv2d, "forward", autospec=True, side_effect=nn.Conv2d.forward) as forward:
        module(features_for("network"))
    assert forward.call_count == sum(isinstance(part, nn.Conv2d) for part in module.modules())
