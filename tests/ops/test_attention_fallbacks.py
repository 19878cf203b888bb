"""Which calls of both attentions the fused kernels compute, and with which precision."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from sa_layers.ops import Footprint, backend, extension, fused, pairwise_attention, patchwise_attention
from sa_layers.ops import implementations as implementations_module
from sa_layers.ops.mapping_layer import operands_of
from sa_layers.ops.pairwise_attention import why_no_kernel as why_no_pairwise_kernel
from sa_layers.ops.patchwise_attention import why_no_kernel as why_no_patchwise_kernel

from . import pairwise_problem, patchwise_problem
from .devices import on_devices

native = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
pairwise_module = sys.modules[why_no_pairwise_kernel.__module__]  # the package's attribute of this name is a function
PROBLEMS = {
    "pairwise": lambda device: pairwise_problem.operands("subtraction", (4, 16, 2), (6, 7), device=device),
    "patchwise": lambda device: patchwise_problem.operands((4, 16, 2, 3), (6, 7), device=device),
}
ATTENTIONS = {"pairwise": pairwise_attention, "patchwise": patchwise_attention}
every_attention = pytest.mark.parametrize("attention", ATTENTIONS)


def function(attention: str, device: str) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """An attention as a function of its maps, and these maps."""
    problem = PROBLEMS[attention](device)
    maps = [problem.pop(name).contiguous() for name in ("query", "key", "value")]
    return lambda *maps: ATTENTIONS[attention](*maps, **problem | {"kernel_size": 3}), maps


def why_no_pairwise(device: str, dtype: torch.dtype = torch.float32, value_channels: int = 64) -> str | None:
    sizes = (16, value_channels, [18, 16, 8], 2)
    return why_no_pairwise_kernel(torch.device(device), dtype, *sizes, Footprint.parse(7), "subtraction")


def why_no_patchwise(device: str, dtype: torch.dtype = torch.float32, value_channels: int = 64) -> str | None:
    sizes = (16, value_channels, 8)
    return why_no_patchwise_kernel(torch.device(device), dtype, *sizes, Footprint.parse(7), "concatenation")


WHY_NO_KERNEL = {"pairwise": why_no_pairwise, "patchwise": why_no_patchwise}


@every_attention
def test_devices_without_a_kernel(attention: str) -> None:
    expected = f"the fused operator of {attention} attention was not built for meta"
    assert WHY_NO_KERNEL[attention]("meta") == expected


@native
def test_kernels_of_the_cpu() -> None:
    assert why_no_pairwise("cpu", torch.float64, 5120) is None
    assert why_no_patchwise("cpu", torch.bfloat16, 5120) is None
    obstacle = why_no_patchwise("cpu", torch.float64)
    assert obstacle is not None
    assert obstacle.startswith("no kernel of patchwise attention is eligible on cpu, since ")
    assert obstacle.endswith("accumulates in float32")


@every_attention
def test_the_list_of_implementations_decides(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    listed, asked = ["banded: maps are float32", "general: the value has more than 64 channels"], []

    def implementations(*arguments: object) -> list[str]:
        asked.append(arguments)
        return listed

    monkeypatch.setattr(implementations_module, "devices_of", lambda _: frozenset(["cuda"]))
    monkeypatch.setattr(implementations_module, "implementations", implementations)
    implementations_module._why_none.cache_clear()
    why_no_kernel = WHY_NO_KERNEL[attention]
    try:
        expected = f"no kernel of {attention} attention is eligible on cuda, since the value has more than 64 channels"
        assert why_no_kernel("cuda", value_channels=128) == expected
        listed[1] = "general"
        assert why_no_kernel("cuda", value_channels=128) == expected  # the answer is kept
        assert why_no_kernel("cuda", value_channels=64) is None
        listed.clear()  # a library that does not report its implementations
        assert why_no_kernel("cuda", value_channels=32) is None
    finally:
        implementations_module._why_none.cache_clear()
    assert [arguments[:3] for arguments in asked] == [(f"{attention}_attention", "cuda", "float32")] * 3


@native
@every_attention
def test_the_list_is_asked_outside_of_modes(attention: str) -> None:
    """FakeTensorMode would intercept an operator that returns a string."""
    implementations_module._why_none.cache_clear()
    with FakeTensorMode():
        assert WHY_NO_KERNEL[attention]("cpu") is None
    assert implementations_module._why_none.cache_info().misses == 1


@native
@every_attention
def test_switching_the_fused_operators_off(attention: str) -> None:
    attend, maps = function(attention, "cpu")
    with fused(False), backend("torch"):
        expected = attend(*maps)
    with backend("torch"):
        assert torch.equal(attend(*maps), expected)
    assert not torch.equal(attend(*maps), expected)  # summed in another order


@native
@every_attention
def test_function_transforms_use_the_unfused_operators(attention: str) -> None:
    """The kernel has no forward-mode derivative, and forward mode would take it for zero."""
    attend, (query, key, value) = function(attention, "cpu")
    change = torch.randn(key.shape, generator=torch.Generator().manual_seed(1))
    _, tangent = torch.func.jvp(lambda key: attend(query, key, value), (key,), (change,))
    gradient = torch.func.grad(lambda key: attend(query, key, value).sum())(key)
    torch.testing.assert_close(tangent.sum(), (gradient * change).sum(), rtol=1e-4, atol=1e-4)
    keys = torch.stack([key, -key])
    in_turn = torch.stack([attend(query, key, value), attend(query, -key, value)])
    torch.testing.assert_close(torch.vmap(lambda key: attend(query, key, value))(keys), in_turn, rtol=1e-5, atol=1e-5)


@native
@on_devices
@every_attention
def test_compiles_the_fused_kernel_into_one_graph(attention: str, device: str) -> None:
    attend, maps = function(attention, device)
    implementations_module._why_none.cache_clear()
    torch.compiler.reset()
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager", dynamic=True)
    torch.testing.assert_close(compiled(*maps), attend(*maps))


@native
@on_devices
@every_attention
def test_autocast_of_the_fused_kernel(attention: str, device: str) -> None:
    attend, maps = function(attention, device)
    with torch.autocast(device, torch.bfloat16):
        output = attend(*maps)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output, attend(*(item.bfloat16() for item in maps)), rtol=0, atol=0)


TF32_SWITCHES = [
    ("highest", lambda: None),
    ("tf32", lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True)),
    ("tf32", lambda: torch.set_float32_matmul_precision("high")),
    ("tf32", lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32")),
    ("highest", lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "ieee")),
]


@pytest.mark.parametrize(("precision", "switch"), TF32_SWITCHES)
def test_tf32_is_used_where_torch_may_use_it(
    precision: str, switch: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed: list[bool] = []
    monkeypatch.setattr(pairwise_module, "native_attention", lambda *arguments: allowed.append(arguments[-1]))
    problem = PROBLEMS["pairwise"]("cpu")

    def call(device: str) -> None:
        with FakeTensorMode(allow_non_fake_inputs=True):
            maps = [torch.empty_like(problem[name], device=device) for name in ("query", "key", "value")]
            pairwise_module.pairwise_attention_fused(
                *maps, operands_of(problem["mapping"]), Footprint.parse(3), "subtraction", problem["position"], None
            )

    torch.set_float32_matmul_precision("highest")
    try:
        switch()
        call("cuda")
        call("cpu")
        compiled = torch.compile(lambda x: x + pairwise_module.tf32_is_allowed(), fullgraph=True, backend="eager")
        assert bool(compiled(torch.zeros(()))) == (precision == "tf32")
    finally:
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        torch.set_float32_matmul_precision("highest")
    assert allowed == [precision == "tf32", False]
    assert not compiled(torch.zeros(()))  # compiled anew
