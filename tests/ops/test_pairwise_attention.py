"""The fused operator of pairwise attention equals the operators that it is made of and the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sa_layers import reference
from sa_layers.ops import PADDING_MODES, PAIRWISE_RELATIONS, aggregation, extension, pairwise_attention

from .devices import on_devices
from .pairwise_problem import GEOMETRIES, WIDTHS, check, operands

pytestmark = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))


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


@on_devices
def test_a_nan_is_seen_and_stays_near(device: str) -> None:
    (query, key, value, mapping), options = operands("subtraction", (16, 32, 4), (9, 9), device=device)
    key[0, 3, 0, 0] = float("nan")
    output = pairwise_attention(query, key, value, mapping, 3, **options)
    assert output[0, :, :2, :2].isnan().all()
    assert output[0, :, 2:, 2:].isfinite().all()
