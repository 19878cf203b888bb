// Copies from global into shared memory that a thread does not wait for. From sm_80 on. A file of its own, which the
// host emulation of the tests replaces.
#pragma once

#include <cstdint>

#include "cuda/element.cuh"

namespace sa_layers::cuda {

// 16 bytes.
__device__ inline void copy_ahead(void* to, const void* from) {
#if __CUDA_ARCH__ >= 800
  const uint32_t address = uint32_t(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" : : "r"(address), "l"(from) : "memory");
#endif
}

// The thread's copies since the last call belong together.
__device__ inline void end_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" : : : "memory");
#endif
}

// Waits for the thread's own copies, all but the last so many that belong together.
template <int kPending>
__device__ void await_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" : : "n"(kPending) : "memory");
#endif
}

}  // namespace sa_layers::cuda
