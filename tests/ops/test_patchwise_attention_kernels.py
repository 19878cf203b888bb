"""The fused kernels of patchwise attention: every width, geometry, layout and dtype that has a loop of its own."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sa_layers.ops import PADDING_MODES, PATCHWISE_RELATIONS, Footprint, MappingLayer, extension, patchwise_attention
from sa_layers.ops.mapping_layer import operands_of
from sa_layers.ops.patchwise_attention import patchwise_attention_fused
from tests.sampling import exhaustive, sample

from .attention_problem import assert_agrees
from .devices import on_devices
from .patchwise_problem import WIDTHS, by_reference, check, operands
from .weight_forms import FORMS, strided

pytestmark = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
CASES = list(product(WIDTHS, [(1, 1), (2, 1), (1, 2), (2, 2)], PADDING_MODES))
PRODUCTS = list(
    product(
        ("star", "clique"),
        [(4, 16, 2, 3), (16, 64, 8, 7), (33, 48, 24, 3)],
        (torch.float32, torch.bfloat16),
        PADDING_MODES,
    )
)


@on_devices
@pytest.mark.parametrize(("widths", "geometry", "padding_mode"), sample(CASES, 30), ids=str)
def test_every_width_and_geometry(widths: tuple, geometry: tuple[int, int], padding_mode: str, device: str) -> None:
    stride, dilation = geometry
    options = {"stride": stride, "dilation": dilation, "padding_mode": padding_mode}
    check(operands(widths, (9, 8), device=device) | options, 1e-5)


@on_devices
@given(data=st.data())
@settings(max_examples=60 if exhaustive() else 25, deadline=None)
def test_random_problems(data: st.DataObject, device: str) -> None:
    draw = data.draw
    weights = draw(st.integers(1, 20))
    kernel_size = draw(st.sampled_from([1, 3, (3, 1), 5]))
    widths = (draw(st.integers(1, 20)), draw(st.integers(1, 4)) * weights, weights, kernel_size)
    dtype = draw(st.sampled_from(list(TOLERANCES)))
    arguments = operands(
        widths,
        (draw(st.integers(1, 9)), draw(st.integers(1, 20))),
        dtype,
        batch=draw(st.integers(0, 2)),
        relation=draw(st.sampled_from(PATCHWISE_RELATIONS)),
        epilogue=draw(st.booleans()),
        mapping_dtype=draw(st.sampled_from([None, dtype])),
        device=device,
    )
    geometry = {
        "stride": draw(st.integers(1, 3)),
        "dilation": draw(st.integers(1, 2)),
        "padding_mode": draw(st.sampled_from(PADDING_MODES)),
    }
    check(arguments | geometry, TOLERANCES[dtype])


@on_devices
@pytest.mark.parametrize(("relation", "widths", "dtype", "padding_mode"), sample(PRODUCTS, 8), ids=str)
def test_products(relation: str, widths: tuple, dtype: torch.dtype, padding_mode: str, device: str) -> None:
    arguments = operands(widths, (9, 8), dtype, relation=relation, device=device)
    check(arguments | {"stride": (1, 2), "padding_mode": padding_mode}, TOLERANCES[dtype])


@on_devices
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 2), (3, 2), (7, 7), (32, 32)], ids=str)
@pytest.mark.parametrize("widths", [WIDTHS[3], WIDTHS[6]], ids=str)
def test_every_size(widths: tuple, size: tuple[int, int], device: str) -> None:
    check(operands(widths, size, batch=1, device=device), 1e-5)


@on_devices
@pytest.mark.parametrize("widths", [(4, 16, 2, 3), (2, 8, 8, 3)], ids=str)
def test_large_maps(widths: tuple, device: str) -> None:
    check(operands(widths, (200, 333), batch=1, device=device), 1e-5)


@on_devices
@pytest.mark.parametrize("size", [(7, 7), (14, 14)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_batches_of_small_maps(dtype: torch.dtype, size: tuple[int, int], device: str) -> None:
    check(operands((128, 512, 64, 7), size, dtype, batch=5, device=device), TOLERANCES[dtype])


@on_devices
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_every_dtype(widths: tuple, dtype: torch.dtype, device: str) -> None:
    check(operands(widths, (6, 7), dtype, device=device), TOLERANCES[dtype])


@on_devices
@pytest.mark.parametrize("widths", WIDTHS[1:7], ids=str)
def test_epilogue(widths: tuple, device: str) -> None:
    assert (check(operands(widths, (6, 7), epilogue=True, device=device), 1e-5) >= 0).all()


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
        changed = {name: change(arguments[name]) for name in ("query", "key", "value")}
        assert torch.equal(patchwise_attention(**arguments | changed), expected)
    repeated = {name: arguments[name][:1].expand(2, -1, -1, -1) for name in ("query", "key", "value")}
    assert torch.equal(patchwise_attention(**arguments | repeated)[1], expected[0])


@on_devices
@pytest.mark.parametrize("widths", [WIDTHS[1], WIDTHS[6], WIDTHS[8]], ids=str)
def test_a_nan_reaches_the_footprints_that_read_it(widths: tuple, device: str) -> None:
    arguments = operands(widths, (9, 9), batch=1, device=device)
    key = arguments["key"].clone()
    key[0, 0, 4, 4] = float("nan")
    is_nan = patchwise_attention(**arguments | {"key": key}).isnan().cpu()
    assert is_nan.any()
    assert torch.equal(is_nan, torch.from_numpy(by_reference(**arguments | {"key": key})).isnan())


@on_devices
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("widths", [WIDTHS[number] for number in (0, 1, 3, 4, 6)], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_the_mapping(form: str, widths: tuple, dtype: torch.dtype, device: str) -> None:
    """Of any strides, and as the kernels of 1x1 convolutions, which are passed without a copy."""
    arguments = operands(widths, (6, 20), dtype, mapping_dtype=dtype, device=device)
    maps = [arguments[name] for name in ("query", "key", "value")]
    mapping = [
        MappingLayer(strided(scale), strided(shift), FORMS[form](weight), strided(bias))
        for scale, shift, weight, bias in arguments["mapping"]
    ]
    output = patchwise_attention_fused(*maps, operands_of(mapping), Footprint.parse(widths[3]), "concatenation")
    assert_agrees(output, by_reference(**arguments), TOLERANCES[dtype])
