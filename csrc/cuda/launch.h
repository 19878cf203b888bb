// One way to launch every kernel, which the host emulation of the tests replaces through cuda_runtime.h.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "cuda/aggregation.h"
#include "cuda/device_limits.h"
#include "cuda/tiling.h"

namespace sa_layers::cuda {

template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), int64_t blocks, int threads, int64_t shared_bytes,
                   cudaStream_t stream, const Arguments&... arguments) {
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(unsigned(blocks));
  config.blockDim = dim3(unsigned(threads));
  config.dynamicSmemBytes = size_t(shared_bytes);
  config.stream = stream;
  if (shared_bytes > kSharedBytes) {  // more must be asked for
    const cudaError_t refused =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
    if (refused) return refused;
  }
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

// A thread for each of so many elements.
template <typename Kernel, typename... Arguments>
cudaError_t launch_threads(const Kernel& kernel, int64_t threads, cudaStream_t stream, const Arguments&... arguments) {
  constexpr int kBlockThreads = 128;
  if (threads == 0) return cudaSuccess;
  return launch(kernel, (threads + kBlockThreads - 1) / kBlockThreads, kBlockThreads, 0, stream, arguments...);
}

// Whether the code of a kernel that the device runs was compiled for an architecture with tensor cores for maps of T.
template <typename T, typename... Parameters>
cudaError_t find_tensor_cores(void (*kernel)(Parameters...), bool& found) {
  cudaFuncAttributes attributes = {};
  const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
  found = attributes.ptxVersion >= (std::is_same_v<T, __half> ? 75 : 80);
  return error;
}

// What the current device has.
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

// What a kernel that needs tensor cores of bfloat16, whatever its maps hold, is planned for: the current device. Sets
// `found` to whether the kernel has code for them.
template <typename... Parameters>
cudaError_t describe_tensor_core_device(void (*kernel)(Parameters...), DeviceLimits& device, bool& found) {
  const cudaError_t error = find_tensor_cores<__nv_bfloat16>(kernel, found);
  return error ? error : describe_device(device);
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

// The same for maps of half precision; others are left alone.
template <typename Body>
cudaError_t dispatch_half(Element element, const Body& body) {
  if (element == Element::kFloat16) return body(static_cast<__half*>(nullptr));
  if (element == Element::kBFloat16) return body(static_cast<__nv_bfloat16*>(nullptr));
  return cudaSuccess;
}

}  // namespace sa_layers::cuda
