"""torch.compile in evaluation: one operator, with the answers of the module as it is now, whatever was written."""

from __future__ import annotations

import copy
import gc
import pickle
import random
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch._functorch.aot_autograd import make_boxed_func

from sa_layers.fused.evaluation.operator import evaluate
from sa_layers.ops import extension, fused
from tests.fused.evaluation import SUBJECTS, answer, difference, features_for, subject
from tests.fused.structure_changes import STRUCTURE_CHANGES
from tests.fused.value_writes import VALUE_WRITES
from tests.sampling import sample

pytestmark = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
WRITES = VALUE_WRITES | STRUCTURE_CHANGES


class Compiled:
    """A function compiled whole, without generated code, and how often each graph has the operator."""

    def __init__(self, function: Callable[..., Any], dynamic: bool | None = True) -> None:
        self.counts: list[int] = []
        backend = aot_autograd(fw_compiler=self._count)
        self.function = torch.compile(function, backend=backend, fullgraph=True, dynamic=dynamic)

    def _count(self, module: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        self.counts.append(sum(node.target is evaluate for node in module.graph.nodes))
        return make_boxed_func(module.forward)

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def check_equal(results: Any, expected: Any) -> None:
    results, expected = ([item] if isinstance(item, Tensor) else item for item in (results, expected))
    for result, wanted in zip(results, expected, strict=True):
        assert result.dtype == wanted.dtype
        assert result.stride() == wanted.stride()
        assert difference(result, wanted) < 1e-5


@pytest.mark.parametrize("name", sample(SUBJECTS, 6))
def test_at_all_sizes(name: str) -> None:
    """One graph with one operator, in both memory formats."""
    module, features = subject(name), features_for(name)
    compiled = Compiled(module)
    with torch.no_grad():
        for maps in (features, features[:, :, :11].contiguous(), features.repeat(2, 1, 1, 2)):
            check_equal(compiled(maps), module(maps))
        assert compiled.counts == [int("unfused" not in name)]
        maps = features.to(memory_format=torch.channels_last)
        check_equal(compiled(maps), module(maps))


@pytest.mark.parametrize("number", sample(range(12), 2))
def test_values_are_never_stale(number: int) -> None:
    """Any write of a value is seen by the graph that there is."""
    dice = random.Random(number)
    name = dice.choice([name for name in SUBJECTS if "unfused" not in name])
    module, features = subject(name), features_for(name)
    compiled = Compiled(module)
    with torch.no_grad():
        check_equal(compiled(features), module(features))
        for way in dice.sample(sorted(VALUE_WRITES.keys() - {"swapped"}), 12):  # torch cannot swap what it watches
            write = VALUE_WRITES[way](module, dice)
            next(write)
            for _ in write:
                pass
            if not isinstance(expected := answer(module, features), str):
                check_equal(compiled(features), expected)


@pytest.mark.parametrize("name", sample(STRUCTURE_CHANGES, 6))
def test_changes_are_noticed(name: str) -> None:
    """Any other change compiles anew, if it makes a difference."""
    dice = random.Random(name)
    kind = dice.choice(list(SUBJECTS))
    module, features = subject(kind), features_for(kind)
    compiled = torch.compile(module, backend="eager")
    change = STRUCTURE_CHANGES[name](module, dice)
    next(change)
    with torch.no_grad():
        check_equal(compiled(features), module(features))
        for _ in change:
            pass
        expected = answer(module, features)
        if isinstance(expected, str):
            with pytest.raises(Exception, match=r"."):
                compiled(features)
        else:
            check_equal(compiled(features), expected)


def in_place(module: nn.Module, features: Tensor) -> Tensor:
    """A write of a parameter in the same graph, before and after."""
    before = module(features)
    module.norm1.weight.mul_(2)
    after = module(features)
    module.norm1.weight.div_(2)
    return before + after


def attribute(module: nn.Module, features: Tensor) -> Tensor:
    """An attribute that is written while torch.compile traces."""
    module.norm1.eps = 0.5
    result = module(features)
    module.norm1.eps = 1e-5
    return result


def mode(module: nn.Module, features: Tensor) -> Tensor:
    """Batch statistics in between."""
    before = module(features)
    module.train()
    after = module(features)
    module.eval()
    return before + after + module(features)


def replaced_parameters(module: nn.Module, features: Tensor) -> Tensor:
    """Other tensors for one call."""
    tensors = {name: value + 0.1 for name, value in module.named_parameters()}
    return torch.func.functional_call(module, tensors, (features,)) + module(features)


@pytest.mark.parametrize("function", [in_place, attribute, mode, replaced_parameters])
def test_writes_in_compiled_code(function: Callable[..., Tensor]) -> None:
    """What compiled code writes has an effect on the calls behind it."""
    module, features = subject("pairwise block"), features_for("pairwise block")
    other = copy.deepcopy(module)
    compiled = torch.compile(function, backend="aot_eager")
    with torch.no_grad():
        for _ in range(2):
            expected = function(other, features)
            check_equal(compiled(module, features), expected)
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name])


def test_when_it_is_not_taken() -> None:
    """Under the switch, and with a hook, torch.compile traces the modules."""
    module, features = subject("pairwise block"), features_for("pairwise block")
    compiled, seen = Compiled(module), []
    with torch.no_grad():
        compiled(features)
        with fused(False):
            compiled(features)
        handle = module.attention.mapping[0].register_forward_hook(lambda *call: seen.append(call[2]))
        compiled(features)
        handle.remove()
        compiled(features)
    assert compiled.counts == [1, 0, 0]
    assert len(seen) == 1
    with torch.inference_mode():
        check_equal(compiled(features), module(features))
    module.requires_grad_(False)
    compiled(features)
    assert compiled.counts[3:] == [1, 1]


def test_copies_and_other_modules() -> None:
    """Modules that share code, a graph or parameters are computed by themselves."""
    module, features = subject("pairwise block"), features_for("pairwise block")
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.expansion.weight.mul_(3)
        blocks = nn.Sequential(module, other, module)
        compiled = Compiled(blocks)
        check_equal(compiled(features), blocks(features))
        assert compiled.counts == [3]
        single = [Compiled(block) for block in (module, other)]
        for function, block in zip(single, (module, other), strict=True):
            check_equal(function(features), block(features))
        changed = copy.deepcopy(blocks)
        changed[0].norm1.weight.add_(1)
        blocks.load_state_dict(changed.state_dict())
        check_equal(compiled(features), blocks(features))
        blocks.double()
        check_equal(compiled(features.double()), blocks(features.double()))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_of_a_compiled_module(copied: Callable[[nn.Module], nn.Module]) -> None:
    """After ``module.compile()``, a copy computes with its own values, and the module with those that it had."""
    module, features = subject("patchwise block"), features_for("patchwise block")
    module.compile(backend="eager")
    with torch.no_grad():
        expected = module(features)
        other = copied(module)
        other.expansion.weight.mul_(3)
        uncompiled = subject("patchwise block")
        uncompiled.load_state_dict(other.state_dict())
        check_equal(other(features), uncompiled(features))
        check_equal(module(features), expected)


@pytest.mark.slow
def test_generated_code_is_never_that_of_another_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module may get the code of an equal one from inductor's cache, and computes with its own values and options."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    features, hits = features_for("patchwise block"), []
    for value, eps in ((1.0, 1e-5), (2.0, 1e-5), (1.0, 0.5)):
        module = subject("patchwise block")
        module.norm1.weight.data.mul_(value)
        module.norm1.eps = eps
        torch.compiler.reset()
        counters.clear()
        with torch.no_grad():
            check_equal(torch.compile(module)(features), module(features))
        hits.append(counters["inductor"]["fxgraph_cache_hit"])
    assert hits == [0, 1, 0]


@pytest.mark.slow
def test_frozen_code() -> None:
    """With all that inductor can freeze and tune: new values, other sizes and other threads."""
    module, features = subject("pairwise block"), features_for("pairwise block")
    state = {name: value * 1.5 for name, value in module.state_dict().items()}
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    writes: list[Callable[[], object]] = [
        lambda: module.norm1.weight.mul_(2),
        lambda: module.expansion.weight.data.mul_(2),
        lambda: module.norm2.running_mean.add_(1),
        lambda: module.load_state_dict(state),
        optimizer.step,
        lambda: setattr(module.norm2, "eps", 0.5),
        lambda: setattr(module.norm2, "weight", nn.Parameter(torch.full((8,), 1.5))),
    ]
    compiled = torch.compile(module, fullgraph=True, dynamic=True, options={"freezing": True, "max_autotune": True})
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)
        check_equal(compiled(features), module(features))
        for write in writes:
            write()
            check_equal(compiled(features), module(features))
    with ThreadPoolExecutor(3) as threads:
        maps = [features[:, :, :size].contiguous() for size in (5, 9, 17)]
        for result, each in zip(threads.map(torch.no_grad()(compiled), maps), maps, strict=True):
            check_equal(result, module(each).detach())


def test_a_module_that_is_deleted_is_freed() -> None:
    """Neither the graph nor anything beside it keeps it alive."""
    module, features = subject("pairwise network"), features_for("pairwise network")
    function = Compiled(lambda network, image: network(image))
    with torch.no_grad():
        function(module, features)
        function(module, features[:1])
    gone = [weakref.ref(module), *map(weakref.ref, module.parameters())]
    del module
    gc.collect()
    assert all(reference() is None for reference in gone)


def test_autocast() -> None:
    """Compiled mixed precision has the dtypes and the values of the module."""
    module, features = subject("pairwise network"), features_for("pairwise network")
    compiled = Compiled(module)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        check_equal(compiled(features), module(features))
    assert compiled.counts == [1]
