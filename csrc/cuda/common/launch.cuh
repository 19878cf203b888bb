// Launching kernels, querying the device and dispatching on the element type.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "cuda/common/plan.h"
#include "footprint.h"

namespace sa_layers::cuda {

__device__ inline int64_t thread_index() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }

template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), int64_t blocks, int threads, int64_t shared_bytes,
                   cudaStream_t stream, const Arguments&... arguments) {
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(unsigned(blocks));
  config.blockDim = dim3(unsigned(threads));
  config.dynamicSmemBytes = size_t(shared_bytes);
  config.stream = stream;
  if (shared_bytes > kDefaultSharedBytes) {  // above the default a kernel needs permission
    const cudaError_t refused =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
    if (refused) return refused;
  }
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

// One thread per element, without shared memory.
template <typename Kernel, typename... Arguments>
cudaError_t launch_threads(const Kernel& kernel, int64_t threads, cudaStream_t stream, const Arguments&... arguments) {
  constexpr int kBlockThreads = 128;
  if (threads == 0) return cudaSuccess;
  return launch(kernel, ceil_div<int64_t>(threads, kBlockThreads), kBlockThreads, 0, stream, arguments...);
}

// Whether the code of a kernel that the device runs was compiled for an architecture with tensor cores for T.
template <typename T, typename... Parameters>
bool has_tensor_cores_for(void (*kernel)(Parameters...)) {
  cudaFuncAttributes attributes = {};
  if (cudaFuncGetAttributes(&attributes, kernel)) return false;
  return attributes.ptxVersion >= (std::is_same_v<T, __half> ? 75 : 80);
}
constexpr const char* kNoTensorCores = "the device, or what was compiled for it, has no tensor cores for the dtype";

// Queries the current device.
inline cudaError_t describe_device(DeviceLimits& device) {
  int current = 0, multiprocessors = 0, of_multiprocessor = 0, of_block = 0;
  cudaError_t error = cudaGetDevice(&current);
  const auto ask = [&](cudaDeviceAttr attribute, int& answer) {
    if (!error) error = cudaDeviceGetAttribute(&answer, attribute, current);
  };
  ask(cudaDevAttrMultiProcessorCount, multiprocessors);
  ask(cudaDevAttrMaxSharedMemoryPerMultiprocessor, of_multiprocessor);
  ask(cudaDevAttrMaxSharedMemoryPerBlockOptin, of_block);
  device = {multiprocessors, of_multiprocessor, of_block};
  return error;
}

// Whether there is a device, and if so its limits.
inline bool has_device(DeviceLimits& device) {
  if (!describe_device(device)) return true;
  cudaGetLastError();  // clears the error
  return false;
}

// Calls body with a null pointer of the element type.
template <typename Body>
cudaError_t dispatch(Element element, const Body& body) {
  switch (element) {
    case Element::kFloat32:
      return body(static_cast<float*>(nullptr));
    case Element::kFloat64:
      return body(static_cast<double*>(nullptr));
    case Element::kFloat16:
      return body(static_cast<__half*>(nullptr));
    case Element::kBFloat16:
      return body(static_cast<__nv_bfloat16*>(nullptr));
  }
  return cudaErrorInvalidValue;
}

// The same for half precision; does nothing for other types.
template <typename Body>
cudaError_t dispatch_half(Element element, const Body& body) {
  if (element == Element::kFloat16) return body(static_cast<__half*>(nullptr));
  if (element == Element::kBFloat16) return body(static_cast<__nv_bfloat16*>(nullptr));
  return cudaSuccess;
}

}  // namespace sa_layers::cuda
