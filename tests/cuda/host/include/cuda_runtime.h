// CUDA on the host: the kernels' own source runs under the sanitizers, one std::thread for each CUDA thread of a block,
// block after block. Blocks run one after another, so races between blocks are not seen.
#pragma once

#include <barrier>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "cuda_runtime_api.h"

#define __global__
#define __device__
#define __host__
#define __shared__
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __grid_constant__

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

namespace emulation {

// 32 threads of a block, and where they leave things for each other; two places, which take turns, so that one barrier
// at a time is enough.
struct Warp {
  std::barrier<> threads{32};
  alignas(16) unsigned char exchange[2][16 * 1024];
};

// One running block. Shared memory has exactly the size that the launch asks for, so that AddressSanitizer sees beyond.
struct Block {
  std::barrier<> threads;
  std::unique_ptr<unsigned char, decltype(&std::free)> shared;
  std::unique_ptr<Warp[]> warps;
  std::map<int, std::barrier<>> named = {};  // those of some threads each
  std::mutex mutex = {};

  void wait(int name, int threads) {
    std::unique_lock<std::mutex> lock(mutex);
    std::barrier<>& barrier = named.try_emplace(name, threads).first->second;
    lock.unlock();
    barrier.arrive_and_wait();
  }
};

inline Block* block = nullptr;
inline bool without_barriers = false;                // the mistake that ThreadSanitizer must report
inline long tiled_launches = 0, other_launches = 0;  // with shared memory, and without

// What the device is said to have.
inline int shared_limit = 99 * 1024, multiprocessors = 4;
inline int architecture = 90;                   // that the kernels are said to be compiled for
inline std::map<void (*)(), size_t> asked_for;  // shared memory, by kernel
inline std::map<void (*)(), long> launches;

}  // namespace emulation

inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

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
  if (allowed < 48 * 1024) allowed = 48 * 1024;  // more must be asked for
  if (config->dynamicSmemBytes > allowed) return cudaErrorInvalidValue;
  const bool sharing = config->dynamicSmemBytes > 0;
  (sharing ? emulation::tiled_launches : emulation::other_launches)++;
  emulation::launches[reinterpret_cast<void (*)()>(kernel)]++;

  const size_t bytes = (config->dynamicSmemBytes + 15) / 16 * 16;
  emulation::Block block{std::barrier<>(thread_count),
                         {static_cast<unsigned char*>(std::aligned_alloc(16, bytes ? bytes : 16)), &std::free},
                         std::make_unique<emulation::Warp[]>((thread_count + 31) / 32)};
  emulation::block = &block;
  std::barrier<> all(thread_count);
  const auto run = [&](unsigned index, unsigned thread) {
    blockIdx = dim3(index), threadIdx = dim3(thread), blockDim = config->blockDim, gridDim = config->gridDim;
    kernel(arguments...);
  };
  // Without shared memory there is nothing to wait for: a few threads of the host go through all of the launch.
  const unsigned host_threads = sharing ? thread_count : 4;
  std::vector<std::thread> threads;
  for (unsigned host_thread = 0; host_thread < host_threads; ++host_thread) {
    threads.emplace_back([&, host_thread] {
      for (unsigned index = 0; index < block_count; ++index) {
        if (!sharing) {
          for (unsigned thread = host_thread; thread < thread_count; thread += host_threads) run(index, thread);
          continue;
        }
        // All NaN: nothing may be read before it is written.
        if (host_thread == 0) std::memset(block.shared.get(), 0xff, bytes);
        all.arrive_and_wait();
        run(index, host_thread);
        all.arrive_and_wait();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  emulation::block = nullptr;
  return cudaSuccess;
}
