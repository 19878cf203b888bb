"""The fused operator of pairwise attention among torch's own: gradients, compilation, precision, refusals."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from sa_layers.ops import AffineReLU, Footprint, PairPosition, extension, pairwise_attention
from sa_layers.ops.pairwise_attention import why_no_kernel

from .devices import on_devices
from .pairwise_problem import operands

pytestmark = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))


@on_devices
def test_gradients_come_from_the_parts(device: str) -> None:
    (query, key, value, mapping), options = operands("subtraction", (3, 4, 2), (3, 4), torch.float64, device=device)
    maps = [item.requires_grad_() for item in (query, key, value)]
    assert torch.autograd.gradcheck(lambda *items: pairwise_attention(*items, mapping, 3, **options), maps)


@on_devices
def test_registration_and_compilation(device: str) -> None:
    (query, key, value, mapping), options = operands("subtraction", (3, 4, 2), (5, 4), epilogue=True, device=device)
    position, epilogue = options["position"], options["epilogue"]
    parameters = (mapping.scale, mapping.shift, list(mapping.weights), list(mapping.biases))
    geometry = ([3, 3], "subtraction", [2, 1], [1, 1], "reflect", False)
    torch.library.opcheck(
        torch.ops.sa_layers.pairwise_attention.default,
        (query, key, value, *parameters, *position[:2], [], *epilogue, *geometry),
    )

    def function(*maps: Tensor) -> Tensor:
        return pairwise_attention(*maps, mapping, 3, **options)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    torch.testing.assert_close(compiled(query, key, value), function(query, key, value))


@on_devices
def test_autocast(device: str) -> None:
    arguments, options = operands("subtraction", (16, 32, 4), (6, 7), device=device)
    with torch.autocast(device, torch.bfloat16):
        output = pairwise_attention(*arguments, kernel_size=3, **options)
    assert output.dtype == torch.bfloat16
    expected = pairwise_attention(*arguments, kernel_size=3, **options)
    torch.testing.assert_close(output.float(), expected, rtol=5e-2, atol=5e-2)


def test_what_the_cuda_kernel_has_no_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[why_no_kernel.__module__]  # of the name of its function
    monkeypatch.setattr(module, "_native_devices", frozenset(["cpu", "cuda"]))
    cpu, cuda, meta = map(torch.device, ("cpu", "cuda", "meta"))
    assert why_no_kernel(cuda, [258, 128, 64], 512) is None
    assert why_no_kernel(cpu, [2000, 500, 64], 5120) is None
    assert "was not built for meta" in why_no_kernel(meta, [6, 4, 2], 16)
    assert "maps at most 384 channels, and a layer here has 386" in why_no_kernel(cuda, [386, 192, 96], 768)
    assert "at most 4096 channels, and the value has 5120" in why_no_kernel(cuda, [6, 4, 2], 5120)


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
    asked: list[bool] = []
    module = sys.modules[why_no_kernel.__module__]  # of the name of its function
    monkeypatch.setattr(module, "native_attention", lambda *arguments: asked.append(arguments[-1]))
    (query, key, value, mapping), options = operands("subtraction", (3, 4, 2), (5, 4))

    def call(device: str) -> None:
        with FakeTensorMode(allow_non_fake_inputs=True):
            maps = [torch.empty_like(item, device=device) for item in (query, key, value)]
            module.pairwise_attention_fused(
                *maps, mapping, Footprint.parse(3), "subtraction", options["position"], options["epilogue"]
            )

    torch.set_float32_matmul_precision("highest")
    try:
        switch()
        call("cuda")
        call("cpu")
        compiled = torch.compile(lambda x: x + module.tf32_is_allowed(), fullgraph=True, backend="eager")
        assert bool(compiled(torch.zeros(()))) == (precision == "tf32")
    finally:
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        torch.set_float32_matmul_precision("highest")
    assert asked == [precision == "tf32", False]
    assert not compiled(torch.zeros(()))  # compiled anew


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"key": [1.0]}, TypeError, "key must be a tensor, got list"),
        ({"relation": "cosine"}, ValueError, "relation must be one of subtraction, .* got 'cosine'"),
        ({"key": torch.zeros(1, 3, 5, 4)}, ValueError, r"key must have the shape \(1, 4, 5, 4\) for query"),
        ({"value": torch.zeros(1, 7, 5, 4)}, ValueError, r"divides the channels of value \(7\), got 2"),
        ({"value": torch.zeros(1, 8, 5, 4).double()}, TypeError, "query and value must have one dtype"),
        ({"kernel_size": 4}, ValueError, "kernel_size must be odd"),
        ({"scale": torch.zeros(5)}, ValueError, r"mapping.scale must have the shape \(6\)"),
        ({"scale": torch.zeros(6).double()}, TypeError, "mapping.scale must be torch.float32 beside features of"),
        ({"weights": [torch.zeros(2, 5)] * 2}, ValueError, r"mapping.weights\[0\] must have the shape \(out, 6\)"),
        ({"weights": [], "biases": []}, ValueError, "mapping must have one to 3 weights and as many biases, got 0"),
        ({"position": PairPosition(torch.zeros(5, 3), torch.zeros(5, 3))}, ValueError, "position must have at most 4"),
        ({"epilogue": AffineReLU(torch.zeros(8), torch.zeros(4))}, ValueError, r"epilogue.shift must have the shape"),
    ],
)
def test_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    names = ("query", "key", "value", "mapping")
    arguments, options = operands("subtraction", (4, 8, 2), (5, 4))
    call = dict(zip(names, arguments, strict=True)) | options | {"kernel_size": 3}
    parts = {name: change.pop(name) for name in ("scale", "weights", "biases") if name in change}
    call["mapping"] = call["mapping"]._replace(**parts)
    with pytest.raises(error, match=message):
        pairwise_attention(**call | change)


def test_a_direct_call_cannot_read_out_of_bounds() -> None:
    maps = [torch.zeros(1, 4, 5, 5) for _ in range(3)]
    vector, matrix = torch.zeros(4), torch.zeros(2, 4)
    rest = (None, None, [], None, None, [3, 3], "subtraction", [1, 1], [1, 1], "reflect", False)
    operator = torch.ops.sa_layers.pairwise_attention
    with pytest.raises(RuntimeError, match=r"shift must have the shape \(4\), got \(5\)"):
        operator(*maps, vector, torch.zeros(5), [matrix], [torch.zeros(2)], *rest)
    with pytest.raises(RuntimeError, match="weights must have the dtype"):
        operator(*maps, vector, vector, [matrix.double()], [torch.zeros(2)], *rest)
    with pytest.raises(RuntimeError, match="value must have a multiple of the 3 channels of the weights, got 4"):
        operator(*maps, vector, vector, [torch.zeros(3, 4)], [torch.zeros(3)], *rest)
