"""The one-thread-per-output kernels compute the aggregation: their source is compiled for and run on the host."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from sa_layers.benchmark.one_thread_per_output import THREADS, fold, source
from sa_layers.ops import Footprint, aggregation, backend

# Host definitions of CUDA's built-ins, and the grid as two loops.
BEFORE = """
#define __global__
#define __device__ static
struct Index { int x; };
static Index blockIdx, blockDim, threadIdx;
"""
AFTER = """
extern "C" void launch_NAME(int threads, const T* first, const T* second, T* result) {
  blockDim.x = BLOCK;
  for (blockIdx.x = 0; blockIdx.x * BLOCK < threads; ++blockIdx.x)
    for (threadIdx.x = 0; threadIdx.x < BLOCK; ++threadIdx.x) NAME(first, second, result);
}
"""
NAMES = ("aggregate", "value_gradient", "weight_gradient")


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler is installed")
@pytest.mark.parametrize(("kernel_size", "stride", "dilation"), [(3, 1, 1), (5, 2, 1), (3, 3, 2)])
def test_on_the_host(tmp_path: Path, kernel_size: int, stride: int, dilation: int) -> None:
    footprint = Footprint.parse(kernel_size, stride, dilation)
    height, width = footprint.output_size(8, 11)
    value = torch.randn(2, 6, 8, 11, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, footprint.taps, height * width, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(2, 6, height, width, dtype=torch.float64)
    text = BEFORE + source(value, weight, footprint)
    text += "".join(AFTER.replace("NAME", name).replace("BLOCK", str(THREADS)) for name in NAMES)
    (tmp_path / "kernels.cpp").write_text(text)
    command = ["c++", "-O1", "-shared", "-fPIC", "-o", tmp_path / "kernels.so", tmp_path / "kernels.cpp"]
    subprocess.run(command, check=True)
    library = ctypes.CDLL(str(tmp_path / "kernels.so"))

    def launch(name: str, threads: int, *tensors: torch.Tensor) -> torch.Tensor:
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
        getattr(library, f"launch_{name}")(ctypes.c_int(threads), *pointers)
        return tensors[-1]

    padded = torch.empty(2, 6, 8 + 2 * footprint.padding[0], 11 + 2 * footprint.padding[1], dtype=torch.float64)
    found = [
        launch("aggregate", grad.numel(), value, weight, torch.empty_like(grad)),
        fold(launch("value_gradient", padded.numel(), grad, weight, padded), footprint),
        launch("weight_gradient", weight.numel() // footprint.taps, grad, value, torch.empty_like(weight)),
    ]
    with backend("torch"):
        output = aggregation(value, weight, kernel_size, stride, dilation)
    expected = [output, *torch.autograd.grad(output, (value, weight), grad)]
    torch.testing.assert_close(found, expected)
