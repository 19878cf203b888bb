"""Which calls of both attentions the fused kernels compute, and with which precision."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from sa_layers.ops import Footprint, backend, extension, fused, pairwise_attention, patchwise_attention
from sa_layers.ops.pairwise_attention import why_no_kernel as why_no_pairwise_kernel
from sa_layers.ops.patchwise_attention import why_no_kernel as why_no_patchwise_kernel

from . import pairwise_problem, patchwise_problem
from .devices import on_devices

native = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
pairwise_module = sys.modules[why_no_pairwise_kernel.__module__]  # the package's attribute of this name is a function
patchwise_module = sys.modules[why_no_patchwise_kernel.__module__]
CPU, CUDA, META = map(torch.device, ("cpu", "cuda", "meta"))
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


def test_limits_of_the_pairwise_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairwise_module, "_native_devices", frozenset(["cpu", "cuda"]))
    why_no_kernel = why_no_pairwise_kernel
    assert why_no_kernel(CUDA, [258, 128, 64], 512) is None
    assert why_no_kernel(CPU, [2000, 500, 64], 5120) is None
    assert "was not built for meta" in why_no_kernel(META, [6, 4, 2], 16)
    assert "maps at most 384 channels, and a layer here has 386" in why_no_kernel(CUDA, [386, 192, 96], 768)
    assert "at most 4096 channels, and the value has 5120" in why_no_kernel(CUDA, [6, 4, 2], 5120)


def test_limits_of_the_patchwise_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patchwise_module, "_native_devices", frozenset(["cpu", "cuda"]))
    why_no_kernel = why_no_patchwise_kernel
    assert why_no_kernel(CPU, torch.float32, 2000, 9, 4000) is None
    assert why_no_kernel(CUDA, torch.float64, 512, 49, 3072) is None
    assert "was not built for meta" in why_no_kernel(META, torch.float32, 2, 9, 16)
    assert "computes in float32" in why_no_kernel(CPU, torch.float64, 2, 9, 16)
    assert "at most 512 weights of a tap, and here are 513" in why_no_kernel(CUDA, torch.float32, 513, 9, 513)
    assert "at most 4095 taps, and this one has 4225" in why_no_kernel(CUDA, torch.float32, 2, 65 * 65, 16)
    assert "at most 3072 channels, and the value has 4096" in why_no_kernel(CUDA, torch.float32, 512, 9, 4096)


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
                *maps, problem["mapping"], Footprint.parse(3), "subtraction", problem["position"], None
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
