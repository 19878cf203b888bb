// The index of a thread among those of all blocks, for kernels of a thread for an element.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace sa_layers::cuda {

__device__ inline int64_t thread_index() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }

}  // namespace sa_layers::cuda
