// The CUDA runtime and the keywords of CUDA C++ for the host: the kernels' own source runs under the sanitizers.
#pragma once

#include <cmath>
#include <cstring>

#include "cuda_runtime_api.h"
#include "emulation.h"

#define __global__
#define __device__
#define __host__
#define __shared__
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __grid_constant__

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

inline float __expf(float number) { return expf(number); }
inline float __uint_as_float(uint32_t bits) {
  float number;
  std::memcpy(&number, &bits, sizeof number);
  return number;
}

inline void __syncthreads() {
  if (!emulation::without_barriers) emulation::block->threads.arrive_and_wait();
}

inline void __syncwarp() { emulation::block->warps[threadIdx.x / 32].threads.arrive_and_wait(); }

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

inline cudaError_t cudaGetLastError() { return cudaSuccess; }

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? emulation::multiprocessors : emulation::shared_limit;
  return cudaSuccess;
}

template <typename... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute, int bytes) {
  if (bytes > emulation::shared_limit) return cudaErrorInvalidValue;
  emulation::asked_for[reinterpret_cast<void (*)()>(kernel)] = size_t(bytes);
  return cudaSuccess;
}

template <typename... Parameters>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, void (*)(Parameters...)) {
  attributes->ptxVersion = emulation::architecture;
  return cudaSuccess;
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const unsigned thread_count = config->blockDim.x, block_count = config->gridDim.x;
  if (thread_count == 0 || thread_count > 1024 || block_count == 0) return cudaErrorInvalidConfiguration;
  size_t allowed = emulation::asked_for[reinterpret_cast<void (*)()>(kernel)];
  if (allowed < 48 * 1024) allowed = 48 * 1024;  // above the default a kernel needs permission
  if (config->dynamicSmemBytes > allowed) return cudaErrorInvalidValue;
  const bool sharing = config->dynamicSmemBytes > 0;
  (sharing ? emulation::tiled_launches : emulation::other_launches)++;
  emulation::launches[reinterpret_cast<void (*)()>(kernel)]++;

  const auto run = [&](unsigned index, unsigned thread) {
    blockIdx = dim3(index), threadIdx = dim3(thread), blockDim = config->blockDim, gridDim = config->gridDim;
    kernel(arguments...);
  };
  if (!sharing) {  // without shared memory there are no barriers
    for (unsigned index = 0; index < block_count; ++index) {
      for (unsigned thread = 0; thread < thread_count; ++thread) run(index, thread);
    }
    return cudaSuccess;
  }
  const size_t bytes = (config->dynamicSmemBytes + 15) / 16 * 16;
  emulation::Block block{emulation::Barrier(thread_count),
                         {static_cast<unsigned char*>(std::aligned_alloc(16, bytes)), &std::free},
                         std::make_unique<emulation::Warp[]>((thread_count + 31) / 32)};
  emulation::block = &block;
  emulation::Barrier all(thread_count);
  emulation::run_threads(thread_count, [&](unsigned thread) {
    for (unsigned index = 0; index < block_count; ++index) {
      // All NaN: nothing may be read before it is written.
      if (thread == 0) std::memset(block.shared.get(), 0xff, bytes);
      all.arrive_and_wait();
      run(index, thread);
      all.arrive_and_wait();
    }
  });
  emulation::block = nullptr;
  return cudaSuccess;
}
