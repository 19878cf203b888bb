// The shared memory that a launch asks for. A file of its own, which the host emulation of the tests replaces.
#pragma once

#include "cuda/element.cuh"

namespace sa_layers::cuda {

__device__ inline float* shared_memory() {
  extern __shared__ Quad<float> memory[];
  return memory[0].elements;
}

}  // namespace sa_layers::cuda
