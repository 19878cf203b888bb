// Takes the place of csrc/cuda/shared_memory.cuh.
#pragma once

#include "cuda/element.cuh"

namespace sa_layers::cuda {

inline float* shared_memory() { return reinterpret_cast<float*>(emulation::block->shared.get()); }

}  // namespace sa_layers::cuda
