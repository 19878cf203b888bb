"""patchwise_attention: the kernel against the reference and against plain torch, for every shape that has a loop of its
own, instruction set, number of threads and layout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sa_layers import reference
from sa_layers.ops import (
    PADDING_MODES,
    PATCHWISE_RELATIONS,
    AffineReLU,
    Footprint,
    PatchwiseMapping,
    backend,
    extension,
    fused,
    patchwise_attention,
)
from sa_layers.ops.patchwise_attention import why_no_kernel

from .devices import on_devices

native = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3, torch.float64: 1e-12}

# (relation channels, channels, weight channels, kernel size): few weights (vectors of pixels), weights that fill half
# a vector, a part, one, several; depths and panels that end in the middle.
WIDTHS = [
    (3, 6, 1, 3),
    (4, 16, 2, 3),
    (5, 9, 3, (3, 5)),
    (8, 32, 4, 7),
    (6, 20, 5, 3),
    (7, 14, 7, 3),
    (16, 64, 8, 7),
    (9, 24, 12, 3),
    (32, 128, 16, 7),
    (16, 48, 24, 5),
    (33, 80, 40, 3),
    (64, 256, 32, 7),
    (300, 320, 320, 3),
]


def operands(
    widths: tuple,
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    batch: int = 2,
    relation: str = "concatenation",
    device: str = "cpu",
) -> dict[str, Any]:
    """Query, key and value as slices of one channels-last map, as a merged linear layer leaves them; a mapping."""
    channels, value_channels, weights, kernel_size = widths
    taps = Footprint.parse(kernel_size).taps
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        numbers = torch.randn(*shape, generator=generator)
        return numbers.to(device, torch.promote_types(dtype, torch.float32))

    merged = normal(batch, 2 * channels + value_channels, *size).to(dtype)
    query, key, value = merged.contiguous(memory_format=torch.channels_last).split([channels] * 2 + [value_channels], 1)
    affine = {"concatenation": (1 + taps, channels), "star": (taps, 1), "clique": (taps * taps, 1)}[relation]
    mapping = PatchwiseMapping(
        normal(*affine),
        normal(*affine),
        normal(*affine, weights) / (affine[0] * affine[1]) ** 0.5,
        normal(weights),
        normal(weights, taps, weights) / weights**0.5,
        normal(taps, weights),
    )
    arguments = {"query": query, "key": key, "value": value, "mapping": mapping, "kernel_size": kernel_size}
    return arguments | {"relation": relation}


def in_double(item: Any) -> Any:
    """The same operands in float64, which plain torch computes."""
    if hasattr(item, "_fields"):  # a mapping
        return type(item)(*map(in_double, item))
    return item.double() if isinstance(item, Tensor) else item


def exact(arguments: dict[str, Any]) -> Tensor:
    """What plain torch computes in float64."""
    with fused(False):
        return patchwise_attention(**{name: in_double(item) for name, item in arguments.items()})


def check(arguments: dict[str, Any]) -> Tensor:
    """Compares the operator with plain torch in float64."""
    output = patchwise_attention(**arguments)
    expected = exact(arguments)
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert output.dtype == arguments["query"].dtype
    scale = expected.abs().max().item()
    torch.testing.assert_close(output.double(), expected, rtol=0, atol=TOLERANCES[output.dtype] * scale)
    return output


def by_reference(arguments: dict[str, Any], footprint: tuple) -> np.ndarray:
    """The equations on NumPy arrays: the reference's relation and aggregation around two matrices."""
    query, key, value = (arguments[name].double().numpy() for name in ("query", "key", "value"))
    scale, shift, hidden_weight, hidden_bias, weight, bias = (item.double().numpy() for item in arguments["mapping"])
    channels, taps, relation = query.shape[1], len(bias), arguments["relation"]

    def by_channel(tensor: np.ndarray) -> np.ndarray:
        """(1 + taps, R, ...) in the order of the relation: the query, then the keys channel by channel."""
        if relation != "concatenation":
            return tensor[:, 0]
        keys = np.swapaxes(tensor[1:], 0, 1).reshape(channels * taps, *tensor.shape[2:])
        return np.concatenate([tensor[0], keys])

    features = reference.patchwise_relation(query, key, arguments["kernel_size"], relation, *footprint)[:, :, 0]
    activated = np.maximum(features * by_channel(scale)[:, None] + by_channel(shift)[:, None], 0)
    hidden = np.maximum(np.einsum("ndp,dh->nhp", activated, by_channel(hidden_weight)) + hidden_bias[:, None], 0)
    weights = np.einsum("nhp,htw->nwtp", hidden, weight) + bias.T[:, :, None]
    return reference.aggregation(value, weights, arguments["kernel_size"], *footprint)


@given(
    widths=st.tuples(st.integers(1, 20), st.integers(1, 4), st.integers(1, 20), st.sampled_from([1, 3, (3, 1), 5])),
    size=st.tuples(st.integers(1, 9), st.integers(1, 20)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding_mode=st.sampled_from(PADDING_MODES),
    relation=st.sampled_from(PATCHWISE_RELATIONS),
    name=st.sampled_from(["torch", "native"] if extension.is_available() else ["torch"]),
)
@settings(max_examples=60, deadline=None)
def test_against_reference(
    widths: tuple, size: tuple[int, int], stride: int, dilation: int, padding_mode: str, relation: str, name: str
) -> None:
    channels, share, weights, kernel_size = widths
    arguments = operands((channels, share * weights, weights, kernel_size), size, relation=relation)
    footprint = (stride, dilation, padding_mode)
    with backend(name):
        output = patchwise_attention(**arguments, stride=stride, dilation=dilation, padding_mode=padding_mode).double()
    expected = torch.from_numpy(by_reference(arguments, footprint))
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@native
@on_devices
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_every_width(widths: tuple, stride: int, dilation: int, padding_mode: str, device: str) -> None:
    geometry = {"stride": stride, "dilation": dilation, "padding_mode": padding_mode}
    check(operands(widths, (9, 8), device=device) | geometry)


@native
@on_devices
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("widths", [(4, 16, 2, 3), (16, 64, 8, 7), (33, 48, 24, 3)], ids=str)
@pytest.mark.parametrize("relation", ["star", "clique"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products(relation: str, widths: tuple, padding_mode: str, dtype: torch.dtype, device: str) -> None:
    arguments = operands(widths, (9, 8), dtype, relation=relation, device=device)
    check(arguments | {"stride": (1, 2), "padding_mode": padding_mode})


@native
@on_devices
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 2), (3, 2), (7, 7), (32, 32)])
@pytest.mark.parametrize("widths", [WIDTHS[3], WIDTHS[6]], ids=str)
def test_every_size(widths: tuple, size: tuple[int, int], device: str) -> None:
    check(operands(widths, size, batch=1, device=device))


@native
@on_devices
@pytest.mark.parametrize("widths", [(4, 16, 2, 3), (2, 8, 8, 3)], ids=str)
def test_map_of_a_detector(widths: tuple, device: str) -> None:
    check(operands(widths, (200, 333), batch=1, device=device))


@native
@on_devices
@pytest.mark.parametrize("size", [(7, 7), (14, 14)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_more_than_a_batch_of_small_maps(dtype: torch.dtype, size: tuple[int, int], device: str) -> None:
    check(operands((128, 512, 64, 7), size, dtype, batch=5, device=device))


@native
@on_devices
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_every_dtype(widths: tuple, dtype: torch.dtype, device: str) -> None:
    check(operands(widths, (6, 7), dtype, device=device))


@native
@on_devices
@pytest.mark.parametrize("widths", WIDTHS[1:7], ids=str)
def test_norm_and_activation_behind(widths: tuple, device: str) -> None:
    generator = torch.Generator().manual_seed(1)
    scale, shift = (torch.randn(widths[1], generator=generator).to(device) for _ in range(2))
    output = check(operands(widths, (6, 7), device=device) | {"epilogue": AffineReLU(scale, shift)})
    assert (output >= 0).all()


@native
@on_devices
@pytest.mark.parametrize("widths", [WIDTHS[1], WIDTHS[6]], ids=str)
def test_layouts(widths: tuple, device: str) -> None:
    arguments = operands(widths, (6, 7), device=device)
    expected = patchwise_attention(**arguments)
    for change in (
        lambda map_: map_.contiguous(),
        lambda map_: map_.contiguous(memory_format=torch.channels_last),
        lambda map_: torch.stack([map_, map_], -1)[..., 0],
        lambda map_: map_.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        moved = {name: change(arguments[name]) for name in ("query", "key", "value")}
        assert torch.equal(patchwise_attention(**arguments | moved), expected)
    repeated = {name: arguments[name][:1].expand(2, -1, -1, -1) for name in ("query", "key", "value")}
    assert torch.equal(patchwise_attention(**arguments | repeated)[1], expected[0])


@native
@on_devices
def test_no_images(device: str) -> None:
    assert patchwise_attention(**operands(WIDTHS[1], (6, 7), batch=0, device=device)).shape == (0, 16, 6, 7)


def test_what_has_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[why_no_kernel.__module__]  # of the name of its function
    monkeypatch.setattr(module, "_native_devices", frozenset(["cpu", "cuda"]))
    cpu, cuda, meta = map(torch.device, ("cpu", "cuda", "meta"))
    assert why_no_kernel(cpu, torch.float32, 2000, 9, 4000) is None
    assert why_no_kernel(cuda, torch.float64, 512, 49, 3072) is None
    assert "was not built for meta" in why_no_kernel(meta, torch.float32, 2, 9, 16)
    assert "computes in float32" in why_no_kernel(cpu, torch.float64, 2, 9, 16)
    assert "at most 512 weights of a tap, and here are 513" in why_no_kernel(cuda, torch.float32, 513, 9, 513)
    assert "at most 4095 taps, and this one has 4225" in why_no_kernel(cuda, torch.float32, 2, 65 * 65, 16)
    assert "at most 3072 channels, and the value has 4096" in why_no_kernel(cuda, torch.float32, 512, 9, 4096)


@native
def test_threads_change_no_bit() -> None:
    before = torch.get_num_threads()
    try:
        for widths, size in (((4, 16, 2, 3), (60, 45)), ((16, 64, 8, 7), (28, 30)), ((32, 128, 16, 7), (7, 7))):
            arguments = operands(widths, size, batch=1)
            results = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                results.append(patchwise_attention(**arguments))
            assert torch.equal(results[0], results[1])
            assert torch.equal(results[0], results[2])
    finally:
        torch.set_num_threads(before)


RUN = """
import sys, torch
from sa_layers.ops import patchwise_attention
sys.path.insert(0, sys.argv[1])
from ops.test_patchwise_attention import WIDTHS, operands
results = [patchwise_attention(**operands(widths, (9, 8))) for widths in WIDTHS]
results += [patchwise_attention(**operands(WIDTHS[6], (9, 8), relation=relation)) for relation in ("star", "clique")]
torch.save((torch.ops.sa_layers.cpu_capability(), results), sys.argv[2])
"""


@native
@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_instruction_sets_agree(capability: str, tmp_path: Any) -> None:
    file = tmp_path / "results.pt"
    command = [sys.executable, "-c", RUN, str(Path(__file__).parents[1]), str(file)]
    subprocess.run(command, env=os.environ | {"SA_LAYERS_CPU_CAPABILITY": capability}, check=True)
    chosen, results = torch.load(file)
    if chosen != capability:
        pytest.skip(f"this processor has no more than {chosen}")
    cases = [(widths, "concatenation") for widths in WIDTHS] + [(WIDTHS[6], "star"), (WIDTHS[6], "clique")]
    for (widths, relation), result in zip(cases, results, strict=True):
        expected = patchwise_attention(**operands(widths, (9, 8), relation=relation))
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@native
@on_devices
def test_what_is_not_a_number_stays_so(device: str) -> None:
    for widths in (WIDTHS[1], WIDTHS[6], WIDTHS[8]):
        arguments = operands(widths, (9, 9), batch=1, device=device)
        key = arguments["key"].clone()
        key[0, 0, 4, 4] = float("nan")
        is_nan = patchwise_attention(**arguments | {"key": key}).isnan()
        expected = exact(arguments | {"key": key})
        assert is_nan.any()
        assert torch.equal(is_nan, expected.isnan())


def test_gradients_flow_through_plain_torch() -> None:
    arguments = operands((2, 4, 2, 3), (3, 4), batch=1)
    key = arguments["key"].clone().requires_grad_()
    patchwise_attention(**arguments | {"key": key}).sum().backward()
    assert key.grad is not None
    assert key.grad.abs().max() > 0


@native
def test_transforms_go_through_plain_torch() -> None:
    """The kernel has no tangent, which forward mode takes for one of zeros."""
    arguments = operands((2, 4, 2, 3), (3, 4), batch=1)
    key, change = arguments["key"].clone(), torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(1))

    def function(key: Tensor) -> Tensor:
        return patchwise_attention(**arguments | {"key": key})

    _, tangent = torch.func.jvp(function, (key,), (change,))
    gradient = torch.func.grad(lambda key: function(key).sum())(key)
    torch.testing.assert_close(tangent.sum(), (gradient * change).sum(), rtol=1e-4, atol=1e-4)
    keys = torch.stack([key, -key])
    torch.testing.assert_close(torch.vmap(function)(keys), torch.stack([function(key), function(-key)]))


@native
def test_the_switch_of_fused_operators() -> None:
    arguments = operands((4, 16, 2, 3), (6, 7))
    with fused(False):
        unfused = patchwise_attention(**arguments)
    with backend("torch"):
        assert torch.equal(patchwise_attention(**arguments), unfused)


@native
@on_devices
def test_registration(device: str) -> None:
    arguments = operands((4, 16, 2, 3), (6, 7), device=device)
    maps = [arguments[name] for name in ("query", "key", "value")]
    geometry = ([3, 3], "concatenation", [2, 1], [1, 1], "reflect", True)
    operator = torch.ops.sa_layers.patchwise_attention.default
    torch.library.opcheck(operator, (*maps, *arguments["mapping"], None, None, *geometry))


@native
@on_devices
def test_compiles_to_one_graph(device: str) -> None:
    arguments = operands((4, 16, 2, 3), (6, 7), device=device)
    compiled = torch.compile(lambda query: patchwise_attention(**arguments | {"query": query}), fullgraph=True)
    torch.testing.assert_close(compiled(arguments["query"]), patchwise_attention(**arguments))


@native
@on_devices
def test_autocast_takes_one_dtype(device: str) -> None:
    arguments = operands((16, 64, 8, 3), (6, 7), device=device)
    half = {name: arguments[name].bfloat16() for name in ("query", "key")}
    with torch.autocast(device, torch.bfloat16):
        output = patchwise_attention(**arguments | half)
    assert output.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": torch.zeros(2, 5, 6, 7)}, "key must have the shape"),
        ({"value": torch.zeros(2, 16, 6, 6)}, "value must have the shape"),
        ({"value": torch.zeros(2, 15, 6, 7)}, "divides the channels of value"),
        ({"kernel_size": 5}, "scale must have the shape"),
        ({"epilogue": AffineReLU(torch.ones(16), torch.ones(15))}, "epilogue.shift must have the shape"),
        ({"padding_mode": "wrap"}, "padding_mode must be one of"),
        ({"relation": "dot"}, "relation must be one of"),
        ({"relation": "star"}, "scale must have the shape"),
    ],
)
def test_refusals(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        patchwise_attention(**operands((4, 16, 2, 3), (6, 7)) | change)


@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_refuses_what_is_no_tensor(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a tensor, got list"):
        patchwise_attention(**operands((4, 16, 2, 3), (6, 7)) | {name: [1.0]})


def test_refuses_a_mapping_in_half_precision() -> None:
    arguments = operands((4, 16, 2, 3), (6, 7))
    mapping = arguments["mapping"]._replace(bias=arguments["mapping"].bias.half())
    with pytest.raises(TypeError, match="bias must be torch"):
        patchwise_attention(**arguments | {"mapping": mapping})
