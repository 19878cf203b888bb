// The dynamic shared memory of a block, and asynchronous copies into it. A file of its own because the host emulation
// of the tests replaces it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/common/pack.cuh"

namespace sa_layers::cuda {

__device__ inline float* shared_memory() {
  extern __shared__ Pack<float, 4> memory[];
  return memory[0].elements;
}

// Starts copying 16 bytes from global to shared memory (cp.async, from sm_80 on).
__device__ inline void copy_async(void* to, const void* from) {
#if __CUDA_ARCH__ >= 800
  const uint32_t address = uint32_t(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" : : "r"(address), "l"(from) : "memory");
#endif
}

// Commits the thread's copies since the last call as one group.
__device__ inline void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" : : : "memory");
#endif
}

// Waits for all of the thread's groups of copies but the last kPending.
template <int kPending>
__device__ void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" : : "n"(kPending) : "memory");
#endif
}

}  // namespace sa_layers::cuda
