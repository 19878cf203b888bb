// Element types: storage, the type that sums are accumulated in, and arithmetic that propagates NaN.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

namespace sa_layers::cuda {

template <typename T>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};
// The accumulator type: float32 for half precision.
template <typename T>
using Compute = typename ComputeType<T>::type;

__device__ inline float widen(float number) { return number; }
__device__ inline double widen(double number) { return number; }
__device__ inline float widen(__half number) { return __half2float(number); }
__device__ inline float widen(__nv_bfloat16 number) { return __bfloat162float(number); }

__device__ inline void narrow(float number, float& to) { to = number; }
__device__ inline void narrow(double number, double& to) { to = number; }
__device__ inline void narrow(float number, __half& to) { to = __float2half_rn(number); }
__device__ inline void narrow(float number, __nv_bfloat16& to) { to = __float2bfloat16_rn(number); }

// Fast for float32: accurate to two units in the last place near 1, where the weights that matter are.
__device__ inline float exponential(float number) { return __expf(number); }
__device__ inline double exponential(double number) { return exp(number); }

// Propagates NaN, as torch's ReLU does.
template <typename C>
__device__ C relu(C number) {
  return number < 0 ? C(0) : number;
}

// The maximum; propagates NaN, as torch's max-pooling and ReLU do.
template <typename C>
__device__ C max_nan(C a, C b) {
  return a > b || a != a ? a : b;
}
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
template <>
__device__ inline float max_nan(float a, float b) {  // one instruction instead of three
  float result;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}
#endif

}  // namespace sa_layers::cuda
