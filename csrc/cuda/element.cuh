// Element types as the kernels see them: storage, and the type that sums are kept in.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>

namespace sa_layers::cuda {

template <typename T>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};
// Sums of half-precision products are kept in float32.
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

// Fast where float32 is: good to two units in the last place for the weights that matter, those near 1.
__device__ inline float exponential(float number) { return __expf(number); }
__device__ inline double exponential(double number) { return exp(number); }
__device__ inline float logarithm(float number) { return logf(number); }
__device__ inline double logarithm(double number) { return log(number); }

// Four elements that one instruction loads or stores, which needs an address that is a multiple of their size.
template <typename T>
struct alignas(4 * sizeof(T)) Quad {
  T elements[4];
};

}  // namespace sa_layers::cuda
