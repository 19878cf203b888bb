"""Checks and conversions of arrays: float64 inside, the caller's dtype outside."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.floating[Any]]
Float64Array: TypeAlias = NDArray[np.float64]


def check_array(name: str, array: Any) -> None:
    """Raise unless array is a NumPy array of float16, float32 or float64."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, got {type(array).__name__}")
    if array.dtype.type not in (np.float16, np.float32, np.float64):
        raise TypeError(f"{name} must be float16, float32 or float64, got {array.dtype}")


def check_map(name: str, array: Any) -> None:
    """Raise unless array is a feature map (N, C, H, W); only N may be 0."""
    check_array(name, array)
    if array.ndim != 4:
        raise ValueError(f"{name} must have shape (N, C, H, W), got {array.shape}")
    if min(array.shape[1:]) < 1:
        raise ValueError(f"{name} must have at least one channel, row and column, got shape {array.shape}")


def check_same_maps(query: Any, key: Any) -> None:
    """Raise unless query and key are feature maps of one shape."""
    check_map("query", query)
    check_map("key", key)
    if query.shape != key.shape:
        raise ValueError(f"key must have the shape of query, {query.shape}, got {key.shape}")


def check_value(value: Any, query: FloatArray) -> None:
    """Raise unless value is a feature map with the batch and the size of query."""
    check_map("value", value)
    if (value.shape[0], *value.shape[2:]) != (query.shape[0], *query.shape[2:]):
        batch, _, height, width = query.shape
        raise ValueError(f"value must have shape ({batch}, C, {height}, {width}) for this query, got {value.shape}")


def check_grad_output(grad_output: Any, shape: tuple[int, ...]) -> None:
    """Raise unless grad_output is an array with the shape of the forward's output."""
    check_array("grad_output", grad_output)
    if grad_output.shape != shape:
        raise ValueError(f"grad_output must have the shape of the output, {shape}, got {grad_output.shape}")


def check_relation(relation: Any, allowed: tuple[str, ...]) -> None:
    """Raise unless relation is one of those allowed."""
    if relation not in allowed:
        raise ValueError(f"relation must be one of {', '.join(map(repr, allowed))}, got {relation!r}")


def to_float64(array: FloatArray) -> Float64Array:
    """Copy to C-contiguous, writable float64: Numba would compile once more for every other layout."""
    return np.array(array, dtype=np.float64, order="C", subok=False)


def flatten_map(array: FloatArray) -> Float64Array:
    """Copy a map (N, C, H, W) to (N, C, H*W + 1): its pixels row by row, then the zero that lies outside it."""
    batch, channels, height, width = array.shape
    flat = np.zeros((batch, channels, height * width + 1))
    flat[:, :, :-1] = array.reshape(batch, channels, height * width)
    return flat


def unflatten_map(flat: Float64Array, like: FloatArray) -> FloatArray:
    """Undo flatten_map, in the shape and dtype of like; what lies outside the map is dropped."""
    return flat[:, :, :-1].reshape(like.shape).astype(like.dtype)
