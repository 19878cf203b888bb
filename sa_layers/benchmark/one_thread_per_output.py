"""Aggregation on a GPU with one thread per output, the algorithm of the official kernels, as a baseline.

This is an independent implementation. Like the official kernels, it is compiled at run time for one shape, supports
float32 and float64, and requires contiguous operands and square footprints.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..ops import Footprint
from ..ops.footprint import bounce

THREADS = 256
TYPES = {torch.float32: "float", torch.float64: "double"}

_SOURCE = """
__device__ int reflected(int position, int size) {
  if (position < 0) return -position;
  return position < size ? position : 2 * (size - 1) - position;
}

// One thread for every (n, c, h, w) of the output.
extern "C" __global__ void aggregate(const T* value, const T* weight, T* output) {
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= N * C * OH * OW) return;
  const int n = index / OW / OH / C, c = index / OW / OH % C, h = index / OW % OH, w = index % OW;
  T sum = 0;
  for (int kh = 0; kh < K; ++kh) {
    for (int kw = 0; kw < K; ++kw) {
      const int row = reflected(h * STRIDE - PADDING + kh * DILATION, H);
      const int column = reflected(w * STRIDE - PADDING + kw * DILATION, W);
      sum += weight[((n * CW + c % CW) * K * K + kh * K + kw) * OH * OW + h * OW + w] *
             value[((n * C + c) * H + row) * W + column];
    }
  }
  output[index] = sum;
}

// One thread for every (n, c, h, w) of the padded map. fold() adds the padding to the pixels that it reflects.
extern "C" __global__ void value_gradient(const T* grad_output, const T* weight, T* grad_padded) {
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= N * C * (H + 2 * PADDING) * (W + 2 * PADDING)) return;
  const int w = index % (W + 2 * PADDING), h = index / (W + 2 * PADDING) % (H + 2 * PADDING);
  const int c = index / (W + 2 * PADDING) / (H + 2 * PADDING) % C;
  const int n = index / (W + 2 * PADDING) / (H + 2 * PADDING) / C;
  T sum = 0;
  for (int kh = 0; kh < K; ++kh) {
    for (int kw = 0; kw < K; ++kw) {
      const int row = h - kh * DILATION, column = w - kw * DILATION;
      if (row % STRIDE == 0 && column % STRIDE == 0) {
        const int out_row = row / STRIDE, out_column = column / STRIDE;
        if (row >= 0 && out_row < OH && column >= 0 && out_column < OW) {
          sum += weight[((n * CW + c % CW) * K * K + kh * K + kw) * OH * OW + out_row * OW + out_column] *
                 grad_output[((n * C + c) * OH + out_row) * OW + out_column];
        }
      }
    }
  }
  grad_padded[index] = sum;
}

// One thread for every (n, c, h, w) with weight channel c and output position (h, w).
extern "C" __global__ void weight_gradient(const T* grad_output, const T* value, T* grad_weight) {
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= N * CW * OH * OW) return;
  const int n = index / OW / OH / CW, c = index / OW / OH % CW, h = index / OW % OH, w = index % OW;
  for (int kh = 0; kh < K; ++kh) {
    for (int kw = 0; kw < K; ++kw) {
      const int row = reflected(h * STRIDE - PADDING + kh * DILATION, H);
      const int column = reflected(w * STRIDE - PADDING + kw * DILATION, W);
      T sum = 0;
      for (int shared = c; shared < C; shared += CW) {
        sum += grad_output[((n * C + shared) * OH + h) * OW + w] * value[((n * C + shared) * H + row) * W + column];
      }
      grad_weight[((n * CW + c) * K * K + kh * K + kw) * OH * OW + h * OW + w] = sum;
    }
  }
}
"""


def why_not(dtype: torch.dtype) -> str | None:
    """Return the reason why these kernels are not available for a dtype, or None if they are."""
    if not hasattr(torch.cuda, "_compile_kernel"):
        return f"torch {torch.__version__} cannot compile a kernel at run time"
    if dtype not in TYPES:
        return f"the official kernels support float32 and float64, not {dtype}"
    return None


def aggregation(value: Tensor, weight: Tensor, footprint: Footprint) -> Tensor:
    """Compute :func:`sa_layers.ops.aggregation` on CUDA tensors, for reflection padding smaller than the map."""
    return _Aggregation.apply(value, weight, footprint)


def source(value: Tensor, weight: Tensor, footprint: Footprint) -> str:
    """Return the CUDA source of the kernels, in which the shape is a set of macros."""
    out_height, out_width = footprint.output_size(*value.shape[2:])
    sizes = {"N": value.shape[0], "C": value.shape[1], "CW": weight.shape[1], "H": value.shape[2], "W": value.shape[3]}
    sizes |= {"OH": out_height, "OW": out_width, "K": footprint.kernel_size[0], "STRIDE": footprint.stride[0]}
    sizes |= {"DILATION": footprint.dilation[0], "PADDING": footprint.padding[0]}
    definitions = [f"#define {name} {number}" for name, number in {"T": TYPES[value.dtype], **sizes}.items()]
    return "\n".join([*definitions, _SOURCE])


def fold(padded: Tensor, footprint: Footprint) -> Tensor:
    """Compute the gradient of a map from that of the padded map, by adding the padding to the pixels it reflects."""
    for dim, padding in zip((2, 3), footprint.padding, strict=True):
        size = padded.shape[dim] - 2 * padding
        shape = [*padded.shape[:dim], size, *padded.shape[dim + 1 :]]
        padded = padded.new_zeros(shape).index_add_(dim, bounce(size, padding, padded.device), padded)
    return padded


class _Aggregation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: Tensor, footprint: Footprint) -> Tensor:
        ctx.save_for_backward(value, weight)
        ctx.footprint, ctx.source = footprint, source(value, weight, footprint)
        output = value.new_empty(*value.shape[:2], *footprint.output_size(*value.shape[2:]))
        _launch(ctx.source, "aggregate", output.numel(), value, weight, output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        value, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        height, width = ctx.footprint.padding
        padded = value.new_empty(*value.shape[:2], value.shape[2] + 2 * height, value.shape[3] + 2 * width)
        _launch(ctx.source, "value_gradient", padded.numel(), grad, weight, padded)
        grad_weight = torch.empty_like(weight)
        _launch(ctx.source, "weight_gradient", weight.numel() // weight.shape[2], grad, value, grad_weight)
        return fold(padded, ctx.footprint), grad_weight, None


def _launch(text: str, name: str, threads: int, *tensors: Tensor) -> None:
    _compiled(text, name)(grid=(-(-threads // THREADS), 1, 1), block=(THREADS, 1, 1), args=list(tensors))


@functools.cache
def _compiled(text: str, name: str) -> Callable[..., None]:
    return torch.cuda._compile_kernel(text, name)
