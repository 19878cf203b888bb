"""The fused kernels of pairwise attention: every width, geometry, layout and dtype that has a loop of its own."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sa_layers.ops import (
    PADDING_MODES,
    PAIRWISE_RELATIONS,
    Footprint,
    MappingLayer,
    aggregation,
    backend,
    extension,
    pairwise_attention,
)
from sa_layers.ops.mapping_layer import operands_of
from sa_layers.ops.pairwise_attention import pairwise_attention_fused
from tests.sampling import exhaustive, sample

from .attention_problem import assert_agrees
from .devices import on_devices
from .pairwise_problem import GEOMETRIES, WIDTHS, by_reference, check, operands
from .weight_forms import FORMS, strided

pytestmark = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}
CASES = list(product(PAIRWISE_RELATIONS, WIDTHS, range(len(GEOMETRIES)), PADDING_MODES))


@on_devices
@pytest.mark.parametrize(("relation", "widths", "number", "padding_mode"), sample(CASES, 60), ids=str)
def test_every_width_and_geometry(
    relation: str, widths: tuple[int, int, int], number: int, padding_mode: str, device: str
) -> None:
    size, kernel_size, stride, dilation = GEOMETRIES[number]
    geometry = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation, "padding_mode": padding_mode}
    options = {"batch": 1 + number % 2, "epilogue": number % 3 == 0, "seed": number, "device": device}
    check(operands(relation, widths, size, **options) | geometry, 1e-5)


@on_devices
@given(data=st.data())
@settings(max_examples=60 if exhaustive() else 25, deadline=None)
def test_random_problems(data: st.DataObject, device: str) -> None:
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
    dtype = draw(st.sampled_from(list(TOLERANCES)))
    arguments = operands(
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
        mapping_dtype=draw(st.sampled_from([None, dtype])),
        device=device,
    )
    check(arguments | geometry, TOLERANCES[dtype])


@on_devices
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)], ids=str)
@pytest.mark.parametrize(
    ("widths", "size", "kernel_size"),
    [((4, 16, 2), (200, 333), 3), ((16, 64, 8), (50, 84), 7), ((128, 512, 64), (7, 11), 7)],
    ids=str,
)
def test_large_maps(
    widths: tuple[int, int, int],
    size: tuple[int, int],
    kernel_size: int,
    dtype: torch.dtype,
    tolerance: float,
    device: str,
) -> None:
    check(operands("subtraction", widths, size, dtype, device=device) | {"kernel_size": kernel_size}, tolerance)


@on_devices
@pytest.mark.parametrize(
    ("relation", "widths", "size", "kernel_size", "batch", "layers"),
    [
        ("subtraction", (128, 512, 64), (7, 7), 7, 33, 2),
        ("concatenation", (128, 512, 64), (5, 6), 5, 1, 3),
        ("concatenation", (190, 380, 380), (3, 4), 3, 1, 2),
    ],
    ids=["batch", "layers", "widest"],
)
def test_large_batches_and_wide_mappings(
    relation: str,
    widths: tuple[int, int, int],
    size: tuple[int, int],
    kernel_size: int,
    batch: int,
    layers: int,
    device: str,
) -> None:
    arguments = operands(relation, widths, size, batch=batch, layers=layers, device=device)
    check(arguments | {"kernel_size": kernel_size}, 1e-4)


@on_devices
@pytest.mark.parametrize("layout", ["contiguous", "slices", "expanded", "strided"])
def test_layouts(layout: str, device: str) -> None:
    arguments = operands("subtraction", (16, 32, 4), (6, 7), batch=2, device=device)
    maps = [arguments[name] for name in ("query", "key", "value")]
    if layout == "contiguous":
        maps = [item.contiguous() for item in maps]
    elif layout == "slices":
        merged = torch.cat(maps, dim=1).to(memory_format=torch.channels_last)
        maps = list(merged.split([16, 16, 32], dim=1))
    elif layout == "expanded":
        maps = [item[:1].expand(2, -1, -1, -1) for item in maps]
    else:
        maps = [item.repeat_interleave(2, 3)[..., ::2] for item in maps]
    check(arguments | dict(zip(("query", "key", "value"), maps, strict=True)) | {"kernel_size": 7}, 1e-5)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 7), (9, 40)], ids=str)
@pytest.mark.parametrize("widths", [(3, 8, 4), (20, 64, 32)], ids=str)
def test_equal_logits_give_the_mean_of_all_taps(
    widths: tuple[int, int, int], size: tuple[int, int], padding_mode: str
) -> None:
    """A pixel that several taps read counts several times."""
    arguments = operands("subtraction", widths, size, batch=2)
    arguments["mapping"] = [layer._replace(weight=torch.zeros_like(layer.weight)) for layer in arguments["mapping"]]
    output = pairwise_attention(**arguments, kernel_size=7, padding_mode=padding_mode)
    value = arguments["value"]
    weight = value.new_full((2, 1, 49, size[0] * size[1]), 1 / 49)
    torch.testing.assert_close(output, aggregation(value, weight, 7, padding_mode=padding_mode))


@on_devices
def test_a_nan_reaches_the_footprints_that_read_it(device: str) -> None:
    arguments = operands("subtraction", (16, 32, 4), (9, 9), device=device)
    arguments["key"][0, 3, 0, 0] = float("nan")
    output = pairwise_attention(**arguments, kernel_size=3)
    assert output[0, :, :2, :2].isnan().all()
    assert output[0, :, 2:, 2:].isfinite().all()


@on_devices
@pytest.mark.parametrize("number", [float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize("widths", [(16, 64, 8), (4, 16, 2)], ids=str)
@pytest.mark.parametrize("relation", PAIRWISE_RELATIONS)
def test_an_infinite_key_reaches_no_more_than_by_parts(
    relation: str, widths: tuple[int, int, int], number: float, device: str
) -> None:
    """Where a ReLU or another part absorbs it, the output is finite."""
    arguments = operands(relation, widths, (5, 20), device=device) | {"kernel_size": 3}
    first, *others = arguments["mapping"]
    for scale in (first.scale, -first.scale.abs(), first.scale.abs()):
        arguments["mapping"] = [first._replace(scale=scale), *others]
        arguments["key"][0, 1, 2, 7] = number
        with backend("torch"):
            expected = pairwise_attention(**arguments)
        output = pairwise_attention(**arguments)
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4, equal_nan=True)
        assert output[..., 10:].isfinite().all()


@on_devices
@pytest.mark.parametrize("widths", [(16, 64, 8), (4, 16, 2)], ids=str)
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_an_average_of_large_numbers_is_finite(widths: tuple[int, int, int], kernel_size: int, device: str) -> None:
    arguments = operands("subtraction", widths, (5, 20), device=device)
    large = 0.9 * torch.finfo(torch.float32).max
    output = pairwise_attention(
        **arguments | {"value": torch.full_like(arguments["value"], large)}, kernel_size=kernel_size
    )
    torch.testing.assert_close(output, torch.full_like(output, large))


@on_devices
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("widths", [(16, 64, 8), (4, 16, 2), (7, 9, 3), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_the_mapping(form: str, widths: tuple, dtype: torch.dtype, device: str) -> None:
    """Of any strides, and as the kernels of 1x1 convolutions, which are passed without a copy."""
    arguments = operands("subtraction", widths, (6, 20), dtype, layers=3, mapping_dtype=dtype, device=device)
    maps = [arguments[name] for name in ("query", "key", "value")]
    mapping = [
        MappingLayer(strided(scale), strided(shift), FORMS[form](weight), strided(bias))
        for scale, shift, weight, bias in arguments["mapping"]
    ]
    output = pairwise_attention_fused(
        *maps, operands_of(mapping), Footprint.parse(3), "subtraction", arguments["position"]
    )
    assert_agrees(output, by_reference(**arguments | {"kernel_size": 3}), TOLERANCES[dtype])
