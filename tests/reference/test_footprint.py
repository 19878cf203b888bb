"""Which input pixels a footprint holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given

from sa_layers.reference import make_footprint

from .formulation import centres, output_size, windows
from .geometries import many_examples, option, options, sizes


@many_examples
@given(size=sizes, options=options)
@example(size=(14, 9), options=option(7, stride=(1, 2), dilation=(2, 1)))
def test_footprint_holds_what_padding_and_sliding_windows_find(size: tuple[int, int], options: dict[str, Any]) -> None:
    """A map that holds its own indices shows which pixel each tap reads."""
    height, width = size
    indices = np.arange(1.0, height * width + 1).reshape(1, 1, height, width)  # from 1: 0 is outside
    footprint = make_footprint(size, **options)

    read = np.append(indices.ravel(), 0)
    np.testing.assert_array_equal(read[footprint.neighbours].T, windows(indices, **options)[0, 0])
    np.testing.assert_array_equal(read[footprint.centres], centres(indices, options["stride"])[0, 0])
    assert footprint.output_size == output_size(size, options["stride"])
    assert footprint.neighbours.shape == (footprint.pixels, footprint.taps)


@pytest.mark.parametrize(
    ("width", "first", "last"),
    [
        (1, [0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]),
        (2, [1, 0, 1, 0, 1, 0, 1], [0, 1, 0, 1, 0, 1, 0]),
        (3, [1, 2, 1, 0, 1, 2, 1], [1, 0, 1, 2, 1, 0, 1]),
        (4, [3, 2, 1, 0, 1, 2, 3], [0, 1, 2, 3, 2, 1, 0]),
        (5, [3, 2, 1, 0, 1, 2, 3], [1, 2, 3, 4, 3, 2, 1]),
    ],
)
def test_reflection_bounces_as_often_as_it_must(width: int, first: list[int], last: list[int]) -> None:
    """By hand: the first and last footprint of 7 taps on a row of each width."""
    neighbours = make_footprint((1, width), (1, 7)).neighbours
    assert neighbours[0].tolist() == first
    assert neighbours[-1].tolist() == last


def test_taps_and_pixels_are_row_major() -> None:
    """By hand: the middle of a 3x3 map sees the map in reading order."""
    assert make_footprint((3, 3), 3).neighbours[4].tolist() == list(range(9))


def test_zero_padding_points_one_past_the_last_pixel() -> None:
    """By hand: the top left corner of a 2x3 map."""
    footprint = make_footprint((2, 3), 3, padding_mode="zeros")
    assert footprint.neighbours[0].tolist() == [6, 6, 6, 6, 0, 1, 6, 3, 4]


def test_stride_and_dilation_apply_to_their_own_axis() -> None:
    """By hand: rows step by 2 and look 1 away, columns step by 3 and look 2 away."""
    footprint = make_footprint((3, 5), (3, 3), stride=(2, 3), dilation=(1, 2))
    assert footprint.output_size == (2, 2)
    assert footprint.centres.tolist() == [0, 3, 10, 13]
    # Row 2 sees rows 1, 2, 1; column 3 sees columns 1, 3, and 5 reflected to 3.
    assert footprint.neighbours[3].tolist() == [6, 8, 8, 11, 13, 13, 6, 8, 8]


@pytest.mark.parametrize("name", ["kernel_size", "stride", "dilation"])
@pytest.mark.parametrize(
    ("value", "error", "allowed"),
    [
        (0, ValueError, "at least 1"),
        ((1, -3), ValueError, "at least 1"),
        (3.0, TypeError, "an int or a pair of ints"),
        (True, TypeError, "an int or a pair of ints"),
        ("3", TypeError, "an int or a pair of ints"),
        ((3, 3, 3), TypeError, "an int or a pair of ints"),
        (None, TypeError, "an int or a pair of ints"),
    ],
)
def test_geometry_errors_name_argument_value_and_what_is_allowed(
    name: str, value: Any, error: type[Exception], allowed: str
) -> None:
    """Every geometric argument is checked the same way."""
    with pytest.raises(error) as raised:
        make_footprint((4, 4), **{"kernel_size": 3, name: value})
    assert str(raised.value).startswith(f"{name} must be {allowed}")
    assert str(raised.value).endswith(f"got {value!r}")


@pytest.mark.parametrize("kernel_size", [2, (3, 4)])
def test_even_kernel_size_is_refused(kernel_size: Any) -> None:
    """An even footprint has no centre."""
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        make_footprint((4, 4), kernel_size)


@pytest.mark.parametrize("padding_mode", ["circular", "Reflect", "", None, 0])
def test_unknown_padding_mode_is_refused(padding_mode: Any) -> None:
    """Only three modes are known."""
    with pytest.raises(ValueError, match=r"padding_mode must be 'reflect', 'zeros' or 'clamp', got"):
        make_footprint((4, 4), 3, padding_mode=padding_mode)


def test_numpy_integers_and_lists_are_accepted() -> None:
    """Sizes often come out of NumPy, and pairs out of config files."""
    expected = make_footprint((4, 5), (3, 5), stride=2)
    kernel_size: Any = [np.int32(3), np.int64(5)]
    stride: Any = np.int64(2)
    np.testing.assert_array_equal(make_footprint((4, 5), kernel_size, stride).neighbours, expected.neighbours)
