"""The fused operator of pairwise attention equals the operators that it is made of and the reference."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses import FakeTensorMode

from sa_layers import reference
from sa_layers.ops import (
    PADDING_MODES,
    PAIRWISE_RELATIONS,
    Epilogue,
    Footprint,
    Mapping,
    PairPosition,
    aggregation,
    extension,
    fused,
    pairwise_attention,
)
from sa_layers.ops.pairwise_attention import why_no_kernel

pytestmark = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))

NO_CUDA = "no GPU is here" if not torch.cuda.is_available() else extension.why_not_cuda()
on_devices = pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(NO_CUDA is not None, reason=str(NO_CUDA)))]
)

# relation, channels, channels of the value, of the weights: those of SAN's stages; parts of vectors; a single channel
WIDTHS = [(4, 16, 2), (16, 64, 8), (32, 128, 16), (64, 256, 32), (7, 9, 3), (3, 40, 20), (1, 1, 1)]
# height and width, kernel_size, stride, dilation
GEOMETRIES = [
    ((6, 7), 3, 1, 1),
    ((9, 8), (3, 5), (2, 1), (1, 2)),
    ((3, 2), 7, 1, 1),
    ((1, 1), 3, 1, 1),
    ((5, 9), 5, 3, 2),
    ((9, 20), 7, 1, 1),
    ((12, 11), 9, 1, 1),
    # wide enough for a vector of pixels
    ((7, 16), 7, 1, 1),
    ((5, 30), (3, 5), (2, 1), (1, 2)),
    ((2, 13), (7, 3), 1, (1, 3)),
]


def operands(
    relation: str,
    widths: tuple[int, int, int],
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    batch: int = 1,
    layers: int = 2,
    positions: int = 2,
    position_size: tuple[int, int] | None = None,
    epilogue: bool = False,
    seed: int = 0,
    device: str = "cpu",
) -> tuple[tuple[Tensor, Tensor, Tensor, Mapping], dict[str, Any]]:
    """Positional and keyword arguments of a call without its geometry."""
    generator = torch.Generator().manual_seed(seed)
    parameter_dtype = torch.promote_types(dtype, torch.float32)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, parameter_dtype)

    channels, value_channels, weight_channels = widths
    query, key, value = (
        normal(batch, number, *size).to(dtype).to(memory_format=torch.channels_last)
        for number in (channels, channels, value_channels)
    )
    inputs = {"dot": 1, "concatenation": 2 * channels}.get(relation, channels) + positions
    sizes = [inputs, *[channels + 1] * (layers - 1), weight_channels]
    weights = [normal(out, fan_in) / fan_in**0.5 for fan_in, out in pairwise(sizes)]
    mapping = Mapping(normal(inputs), normal(inputs), weights, [normal(out) for out in sizes[1:]])
    position = PairPosition(normal(positions, 3), normal(positions, 3), position_size) if positions else None
    last = Epilogue(normal(value_channels), normal(value_channels)) if epilogue else None
    return (query, key, value, mapping), {"relation": relation, "position": position, "epilogue": last}


def in_float64(arguments: tuple, options: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    def convert(item: Any) -> Any:
        if isinstance(item, Tensor):
            return item.double()
        if isinstance(item, tuple) and hasattr(item, "_fields"):
            return type(item)(*map(convert, item))
        return [convert(part) for part in item] if isinstance(item, list) else item

    return tuple(map(convert, arguments)), {name: convert(item) for name, item in options.items()}


def check(arguments: tuple, options: dict[str, Any], geometry: dict[str, Any], tolerance: float) -> Tensor:
    """Fused against unfused in float64, relative to the largest output."""
    output = pairwise_attention(*arguments, **options, **geometry)
    wide_arguments, wide_options = in_float64(arguments, options)
    with fused(False):
        expected = pairwise_attention(*wide_arguments, **wide_options, **geometry)
    assert output.dtype == arguments[0].dtype
    assert output.is_contiguous(memory_format=torch.channels_last)
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(output.double(), expected, rtol=0, atol=tolerance * scale)
    return output


@on_devices
@pytest.mark.parametrize("relation", PAIRWISE_RELATIONS)
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_equals_its_parts(relation: str, widths: tuple[int, int, int], device: str) -> None:
    for number, (size, kernel_size, stride, dilation) in enumerate(GEOMETRIES):
        for padding_mode in PADDING_MODES:
            geometry = {
                "kernel_size": kernel_size,
                "stride": stride,
                "dilation": dilation,
                "padding_mode": padding_mode,
            }
            options = {"batch": 1 + number % 2, "epilogue": number % 3 == 0, "seed": number, "device": device}
            check(*operands(relation, widths, size, **options), geometry, 1e-5)


@on_devices
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_problem(data: st.DataObject, device: str) -> None:
    draw, small = data.draw, st.integers(1, 3)
    weight_channels = draw(st.integers(1, 20))
    widths = (draw(st.integers(1, 40)), weight_channels * draw(st.integers(1, 9)), weight_channels)
    size = (draw(st.integers(1, 12)), draw(st.integers(1, 34)))
    geometry = {
        "kernel_size": (draw(st.sampled_from([1, 3, 5, 7])), draw(st.sampled_from([1, 3, 5, 7]))),
        "stride": (draw(small), draw(small)),
        "dilation": (draw(small), draw(small)),
        "padding_mode": draw(st.sampled_from(PADDING_MODES)),
    }
    dtype, tolerance = draw(
        st.sampled_from([(torch.float32, 1e-4), (torch.float64, 1e-10), (torch.bfloat16, 2e-2), (torch.float16, 4e-3)])
    )
    drawn = operands(
        draw(st.sampled_from(PAIRWISE_RELATIONS)),
        widths,
        size,
        dtype,
        batch=draw(st.integers(0, 2)),
        layers=draw(small),
        positions=draw(st.integers(0, 4)),
        position_size=draw(st.sampled_from([None, (5, 9)])),
        epilogue=draw(st.booleans()),
        seed=draw(st.integers(0, 9)),
        device=device,
    )
    if drawn[0][0].numel():
        check(*drawn, geometry, tolerance)
    else:
        assert not pairwise_attention(*drawn[0], **drawn[1], **geometry).numel()


@pytest.mark.parametrize("relation", PAIRWISE_RELATIONS)
def test_equals_the_reference(relation: str) -> None:
    (query, key, value, mapping), _ = operands(relation, (4, 8, 2), (5, 6), torch.float64, batch=2, positions=0)
    output = pairwise_attention(query, key, value, mapping, 3, relation, 2, 1, "zeros")
    geometry = {"kernel_size": 3, "stride": 2, "dilation": 1, "padding_mode": "zeros"}
    features = reference.pairwise_relation(query.numpy(), key.numpy(), relation=relation, **geometry)
    features = features * mapping.scale.numpy()[:, None, None] + mapping.shift.numpy()[:, None, None]
    for weight, bias in zip(mapping.weights, mapping.biases, strict=True):
        features = np.einsum("oc,nckp->nokp", weight.numpy(), np.maximum(features, 0)) + bias.numpy()[:, None, None]
    expected = reference.softmax_aggregation(value.numpy(), np.ascontiguousarray(features), **geometry)
    np.testing.assert_allclose(output.numpy(), expected, rtol=1e-10, atol=1e-10)


@on_devices
@pytest.mark.parametrize(
    ("widths", "size", "kernel_size"),
    [((4, 16, 2), (200, 333), 3), ((16, 64, 8), (50, 84), 7), ((128, 512, 64), (7, 11), 7)],
)
def test_large_maps(widths: tuple[int, int, int], size: tuple[int, int], kernel_size: int, device: str) -> None:
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 2e-2)):
        check(*operands("subtraction", widths, size, dtype, device=device), {"kernel_size": kernel_size}, tolerance)


@on_devices
def test_more_than_a_batch_of_small_maps_and_wide_mappings(device: str) -> None:
    check(*operands("subtraction", (128, 512, 64), (7, 7), batch=33, device=device), {"kernel_size": 7}, 1e-4)
    check(*operands("concatenation", (128, 512, 64), (5, 6), layers=3, device=device), {"kernel_size": 5}, 1e-4)
    check(*operands("concatenation", (190, 380, 380), (3, 4), device=device), {"kernel_size": 3}, 1e-4)


@on_devices
@pytest.mark.parametrize("layout", ["contiguous", "slices", "expanded", "strided"])
def test_any_strides(layout: str, device: str) -> None:
    (query, key, value, mapping), options = operands("subtraction", (16, 32, 4), (6, 7), batch=2, device=device)
    if layout == "contiguous":
        query, key, value = (item.contiguous() for item in (query, key, value))
    elif layout == "slices":
        merged = torch.cat([query, key, value], dim=1).to(memory_format=torch.channels_last)
        query, key, value = merged.split([16, 16, 32], dim=1)
    elif layout == "expanded":
        query, key, value = (item[:1].expand(2, -1, -1, -1) for item in (query, key, value))
    else:
        query, key, value = (item.repeat_interleave(2, 3)[..., ::2] for item in (query, key, value))
    check((query, key, value, mapping), options, {"kernel_size": 7}, 1e-5)


def test_threads_agree_to_the_bit() -> None:
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(
                [
                    pairwise_attention(*arguments, kernel_size=7, **options)
                    for arguments, options in (
                        operands("subtraction", widths, (17, 23), dtype, batch=2)
                        for widths in WIDTHS[:3]
                        for dtype in (torch.float32, torch.bfloat16)
                    )
                ]
            )
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


def results() -> list[Tensor]:
    """What every instruction set computes."""
    return [
        pairwise_attention(*arguments, kernel_size=5, **options)
        for arguments, options in (
            operands(relation, widths, (9, 21), dtype, epilogue=True)
            for relation in PAIRWISE_RELATIONS
            for widths in WIDTHS
            for dtype in (torch.float32, torch.bfloat16)
        )
    ]


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 7), (9, 40)], ids=str)
@pytest.mark.parametrize("widths", [(3, 8, 4), (20, 64, 32)], ids=str)
def test_a_pixel_counts_as_often_as_taps_read_it(
    widths: tuple[int, int, int], size: tuple[int, int], padding_mode: str
) -> None:
    """With logits all alike the result is the mean over all taps, also those that read the same pixel."""
    (query, key, value, mapping), options = operands("subtraction", widths, size, batch=2)
    alike = mapping._replace(weights=[torch.zeros_like(weight) for weight in mapping.weights])
    output = pairwise_attention(query, key, value, alike, 7, padding_mode=padding_mode, **options)
    weight = value.new_full((2, 1, 49, size[0] * size[1]), 1 / 49)
    torch.testing.assert_close(output, aggregation(value, weight, 7, padding_mode=padding_mode))


def test_threads_change_no_bit() -> None:
    """They share out the pixels by what each has left, in another way every time."""
    before, results = torch.get_num_threads(), []
    try:
        for widths, size in (((4, 16, 2), (60, 45)), ((20, 64, 16), (28, 30)), ((64, 256, 32), (7, 7))):
            arguments, options = operands("subtraction", widths, size, batch=3)
            for threads in (1, 2, 3, 5, 5, 5):
                torch.set_num_threads(threads)
                results.append(pairwise_attention(*arguments, 7, **options))
            assert all(torch.equal(result, results[0]) for result in results)
            results.clear()
    finally:
        torch.set_num_threads(before)


RUN = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from test_pairwise_attention import results
torch.save((torch.ops.sa_layers.cpu_capability(), results()), sys.argv[2])
"""


@pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])
def test_instruction_sets_agree(capability: str, tmp_path: Path) -> None:
    file = tmp_path / "results.pt"
    environment = os.environ | {"SA_LAYERS_CPU_CAPABILITY": capability}
    command = [sys.executable, "-c", RUN, str(Path(__file__).parent), str(file)]
    subprocess.run(command, env=environment, check=True)
    chosen, found = torch.load(file)
    if chosen != capability:
        pytest.skip(f"this processor has no more than {chosen}")
    for one, two in zip(found, results(), strict=True):
        tolerance = 1e-5 if one.dtype == torch.float32 else 1e-2
        torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance)


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
    geometry = ("subtraction", [3, 3], [2, 1], [1, 1], "reflect", False)
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


@on_devices
def test_a_nan_is_seen_and_stays_near(device: str) -> None:
    (query, key, value, mapping), options = operands("subtraction", (16, 32, 4), (9, 9), device=device)
    key[0, 3, 0, 0] = float("nan")
    output = pairwise_attention(query, key, value, mapping, 3, **options)
    assert output[0, :, :2, :2].isnan().all()
    assert output[0, :, 2:, 2:].isfinite().all()


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
            module.fused_pairwise_attention(
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
        ({"epilogue": Epilogue(torch.zeros(8), torch.zeros(4))}, ValueError, r"epilogue.shift must have the shape"),
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
    rest = (None, None, [], None, None, "subtraction", [3, 3], [1, 1], [1, 1], "reflect", False)
    operator = torch.ops.sa_layers.pairwise_attention
    with pytest.raises(RuntimeError, match=r"shift must have the shape \(4\), got \(5\)"):
        operator(*maps, vector, torch.zeros(5), [matrix], [torch.zeros(2)], *rest)
    with pytest.raises(RuntimeError, match="weights must have the dtype"):
        operator(*maps, vector, vector, [matrix.double()], [torch.zeros(2)], *rest)
    with pytest.raises(RuntimeError, match="value must have a multiple of the 3 channels of the weights, got 4"):
        operator(*maps, vector, vector, [torch.zeros(3, 4)], [torch.zeros(3)], *rest)
