"""ONNX nodes: the operator set, and constants."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxscript

OPSET = 20
"""The opset of torch.onnx's translations; newer ones change none of the operators that are used here."""
op: Any = onnxscript.values.Opset("", OPSET)
"""Its methods add a node to the graph that torch.onnx is building."""
Value = Any
"""A tensor of that graph, or a Python number."""


def integers(*values: int) -> Value:
    """A vector of integers, such as a shape."""
    return op.Constant(value=ir.tensor(np.array(values, dtype=np.int64)))


def scalar(value: int) -> Value:
    """An integer without dimensions."""
    return op.Constant(value=ir.tensor(np.array(value, dtype=np.int64)))


def number(value: Value) -> Value:
    """A size, which is a Python integer if it is static, as an integer without dimensions."""
    return scalar(value) if isinstance(value, int) else op.Reshape(value, integers())


def steps(count: Value, step: int = 1) -> Value:
    """``count`` integers from 0 on, a multiple of ``step`` each."""
    numbers = op.Range(scalar(0), count, scalar(1))
    return numbers if step == 1 else op.Mul(numbers, scalar(step))


def multiples(count: int, step: int, *shape: int) -> Value:
    """The first multiples of a number, as a constant of a shape."""
    return op.Constant(value=ir.tensor(np.arange(count, dtype=np.int64).reshape(shape or (-1,)) * step))


def reshape(value: Value, *shape: int) -> Value:
    """A tensor in another shape: 0 keeps a size, -1 infers one."""
    return op.Reshape(value, integers(*shape))


def unsqueeze(value: Value, *axes: int) -> Value:
    """A tensor with further dimensions of size 1."""
    return op.Unsqueeze(value, integers(*axes))


def part(value: Value, start: int, end: int, axis: int) -> Value:
    """The entries from ``start`` to ``end`` along a dimension."""
    return op.Slice(value, integers(start), integers(end), integers(axis))
