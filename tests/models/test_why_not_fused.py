"""``why_not_fused`` of networks, stages and blocks: None exactly if no norm is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from sa_layers.models import SelfAttentionNetwork
from sa_layers.ops import extension, fused

pytestmark = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))


def network() -> SelfAttentionNetwork:
    torch.manual_seed(0)
    small: dict[str, Any] = {"widths": (32, 32, 64, 64, 64), "kernel_sizes": (3,) * 5}
    return SelfAttentionNetwork((1, 1, 2, 1, 1), **small).eval()


def add_hook(name: str) -> Callable[[nn.Module], object]:
    return lambda model: model.get_submodule(name).register_forward_hook(lambda *_: None)


def override_relation(model: SelfAttentionNetwork) -> None:
    layer: Any = model.stages[2].blocks[1].attention
    layer.relate = lambda query, key, relate=layer.relate: 100 * relate(query, key)


def replace_pooling(model: SelfAttentionNetwork) -> None:
    model.stages[3].pool = nn.AvgPool2d(2)


CHANGES: dict[str, tuple[Callable[[Any], object], str | None]] = {
    "nothing": (lambda model: None, None),
    "hook on a block": (add_hook("stages.1.blocks.0"), "stages.1: a SelfAttentionBlock has a forward hook"),
    "hook on a stage": (add_hook("stages.1"), "stages.1 has a forward hook"),
    "hook in a mapping": (
        add_hook("stages.2.blocks.1.attention.mapping.3"),
        "stages.2: in blocks.1 the attention is unfused, since mapping.3 has a forward hook",
    ),
    "hook in the stem": (add_hook("stem.1"), "stem: a BatchNorm2d has a forward hook"),
    "training mode": (lambda model: model.stages[4].train(), None),
    "relation of an instance": (
        override_relation,
        "in blocks.1 the attention is unfused, since PairwiseSelfAttention overrides relate",
    ),
    "another pooling": (replace_pooling, "stages.3: the pooling is not the usual one: AvgPool2d"),
    "another dtype": (lambda model: model.double(), "features are torch.float32 and the parameters torch.float64"),
}


class NormCalls(TorchFunctionMode):
    """Whether a norm was computed. A patch would be an obstacle of its own."""

    called = False

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        self.called |= function is F.batch_norm
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize(("change", "sentence"), CHANGES.values(), ids=CHANGES)
def test_none_if_no_module_is_called(change: Callable[[Any], object], sentence: str | None) -> None:
    model, image = network(), torch.randn(1, 3, 64, 64)
    change(model)
    with torch.no_grad(), NormCalls() as norm:
        obstacle = model.why_not_fused(image)
        if model.stem[0].weight.dtype == image.dtype:
            model(image)
            assert norm.called == (sentence is not None)
    assert obstacle is None if sentence is None else sentence in str(obstacle)


def test_calls() -> None:
    """The switch is an obstacle of the call; autocast is none on a CPU."""
    model, image = network(), torch.randn(1, 3, 32, 32)
    contexts = {
        "switched off": fused(False),
    }
    with torch.no_grad():
        for sentence, context in contexts.items():
            with context:
                assert sentence in str(model.why_not_fused(image))
        with torch.autocast("cpu", torch.bfloat16):
            assert model.why_not_fused(image) is None
        assert model.why_not_fused(image) is None


def test_an_overridden_relation_is_obeyed() -> None:
    model, image = network(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = model(image)[0]
        override_relation(model)
        after = model(image)[0]
        with fused(False):
            expected = model(image)[0]
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before, after, rtol=1e-3)
