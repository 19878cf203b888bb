"""The blocks of `backend` and `fused`: where they apply, and that none leaves anything behind."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.data import DataLoader

from sa_layers.ops import aggregation, backend, fused, why_not_fused
from sa_layers.ops.backend import decide
from sa_layers.ops.switch import Switch

CPU = torch.device("cpu")
OPERANDS = torch.ones(1, 8, 5, 5), torch.ones(1, 1, 9, 25)
DEFAULT = decide(CPU)


def is_fused() -> bool:
    """Whether `fused` is on in this context."""
    return "switched off" not in str(why_not_fused([torch.zeros(1)]))


SETTINGS = {
    "backend": (backend, lambda: decide(CPU), DEFAULT, ("torch", "reference")),
    "fused": (fused, is_fused, True, (False, True)),
}


@pytest.fixture(params=SETTINGS)
def setting(request: pytest.FixtureRequest) -> Iterator[tuple[Any, ...]]:
    """The function that opens a block, one that reads the setting, its default, and two other values."""
    yield SETTINGS[request.param]
    _, read, default, _ = SETTINGS[request.param]
    assert read() == default


def test_blocks_that_overlap_in_threads(setting: tuple[Any, ...]) -> None:
    """Each thread sees its own block, and none when both are left, in the order in which they were entered."""
    block, read, default, (one, two) = setting
    steps = threading.Barrier(2, timeout=60)

    def first() -> list[Any]:
        with block(one):
            steps.wait()
            seen = [read()]
            steps.wait()
        steps.wait()
        return [*seen, read()]

    def second() -> list[Any]:
        with block(two):
            steps.wait()
            seen = [read()]
            steps.wait()
            steps.wait()
            seen.append(read())
        return [*seen, read()]

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(first), pool.submit(second)]
        assert [future.result() for future in futures] == [[one, default], [two, two, default]]
    assert read() == default


def test_a_new_thread_starts_with_the_default(setting: tuple[Any, ...]) -> None:
    """Unless it runs in a copy of the context."""
    block, read, default, (one, _) = setting
    with block(one), ThreadPoolExecutor(1) as pool:
        assert pool.submit(read).result() == default
        assert pool.submit(contextvars.copy_context().run, read).result() == one


def test_workers_that_are_forked_inherit_the_block() -> None:
    class Backends(torch.utils.data.Dataset[str]):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> str:
            return decide(CPU)

    with backend("torch"):
        loader = iter(DataLoader(Backends(), num_workers=1, multiprocessing_context="fork"))
    assert next(loader) == ["torch"]


def test_tasks_of_asyncio(setting: tuple[Any, ...]) -> None:
    """Tasks that wait inside a block do not switch others; a task inherits the block that it is started in."""
    block, read, default, (one, two) = setting

    async def wait_in(value: Any) -> list[Any]:
        with block(value):
            await asyncio.sleep(0)
            seen = [read()]
            await asyncio.sleep(0)
        return [*seen, read()]

    async def wait() -> Any:
        await asyncio.sleep(0)
        return read()

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(wait_in(one)), asyncio.create_task(wait_in(two)), asyncio.create_task(wait())]
        with block(one):
            inheriting = asyncio.create_task(wait())
        return await asyncio.gather(*tasks, inheriting)

    assert asyncio.run(main()) == [[one, default], [two, default], default, one]


def in_block(opened: AbstractContextManager[None]) -> Iterator[None]:
    """A generator that is left half-way, inside a block."""
    with opened:
        yield


def test_generators_that_are_left_half_way(setting: tuple[Any, ...]) -> None:
    """A block that a generator is in applies to its caller until the generator is closed, in whatever order."""
    block, read, default, (one, two) = setting
    generators = [in_block(block(value)) for value in (one, two)]
    seen = []
    for generator in generators:
        next(generator)
        seen.append(read())
    for generator in generators:
        generator.close()  # type: ignore[attr-defined]
        seen.append(read())
    assert seen == [one, two, two, default]


@pytest.mark.parametrize("copied", [False, True])
def test_a_generator_that_another_context_closes(setting: tuple[Any, ...], copied: bool) -> None:
    """A new thread, or a context that inherits the block."""
    block, read, default, (one, _) = setting
    generator = in_block(block(one))
    next(generator)
    context = contextvars.copy_context() if copied else contextvars.Context()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(context.run, generator.close).result()  # type: ignore[attr-defined]
    assert [read(), context.run(read)] == [default, default]


def test_exceptions_and_recursion(setting: tuple[Any, ...]) -> None:
    """Also as a decorator, which opens a block a call."""
    block, read, default, (one, two) = setting

    @block(two)
    def inner(depth: int) -> Any:
        if not depth:
            raise ZeroDivisionError
        with block(one):
            assert read() == one
            inner(depth - 1)

    with block(one):
        with pytest.raises(ZeroDivisionError):
            inner(3)
        assert read() == one
    assert read() == default


class TestCompiled:
    """torch.compile guards the setting of the thread and traces blocks, without a graph break."""

    @pytest.fixture
    def counter(self) -> CompileCounterWithBackend:
        torch.compiler.reset()
        return CompileCounterWithBackend("aot_eager")

    def test_compiles_anew_for_another_value(self, counter: CompileCounterWithBackend) -> None:
        switch = Switch("number", 1)
        compiled = torch.compile(lambda x: x * switch.value, fullgraph=True, backend=counter)

        def result() -> float:
            operand = torch.ones((), requires_grad=True)
            output = compiled(operand)
            output.backward()
            assert output.item() == operand.grad  # the gradient of a product with the value is the value
            return output.item()

        with switch.switched_to(2), ThreadPoolExecutor(1) as pool:
            assert [result(), pool.submit(result).result(), result()] == [2, 1, 2]
            with switch.switched_to(1):
                assert result() == 1
        assert [result(), counter.frame_count] == [1, 2]

    def test_traces_blocks(self, counter: CompileCounterWithBackend) -> None:
        switch = Switch("number", 1)

        def function(x: torch.Tensor) -> torch.Tensor:
            with switch.switched_to(2):
                y = x * switch.value
                with switch.switched_to(3):
                    y = y + switch.value
                y = y + switch.value
            return y * switch.value

        compiled = torch.compile(function, fullgraph=True, backend=counter)
        with switch.switched_to(10):
            assert compiled(torch.ones(())).item() == 70
            assert switch.value == 10
        assert [compiled(torch.ones(())).item(), switch.value, counter.frame_count] == [7, 1, 2]

    @pytest.mark.parametrize("inside", [False, True])
    def test_backends(self, counter: CompileCounterWithBackend, inside: bool) -> None:
        """The operators' own switch, around a compiled function and inside."""
        graphs = []

        def record(module: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
            graphs.append("native" if "sa_layers" in module.code else "torch")
            return module.forward

        def function(*operands: torch.Tensor) -> torch.Tensor:
            if not inside:
                return aggregation(*operands, 3)
            with backend("torch"):
                return aggregation(*operands, 3)

        compiled = torch.compile(function, fullgraph=True, backend=record)
        with backend("torch"):
            compiled(*OPERANDS)
        compiled(*OPERANDS)
        assert graphs == (["torch", "torch"] if inside else ["torch", DEFAULT])
