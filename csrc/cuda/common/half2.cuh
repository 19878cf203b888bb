// Arithmetic on two half-precision numbers in one register, the first in the lower half. From sm_80 on. A file of its
// own because the host emulation of the tests replaces it.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/common/element.cuh"

namespace sa_layers::cuda {

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define SA_LAYERS_PACKED(...) __VA_ARGS__
#else
#define SA_LAYERS_PACKED(...) \
  return {}  // never called
#endif

template <typename T>
using Pair2 = std::conditional_t<std::is_same_v<T, __half>, __half2, __nv_bfloat162>;

template <typename T>
__device__ Pair2<T> as_pair(uint32_t word) {
  return *reinterpret_cast<const Pair2<T>*>(&word);
}
template <typename P>
__device__ uint32_t as_word(P pair) {
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Rounds to nearest.
template <typename T>
__device__ uint32_t pack(float first, float second) {
  if constexpr (std::is_same_v<T, __half>) {
    return as_word(__floats2half2_rn(first, second));
  } else {
    SA_LAYERS_PACKED(return as_word(__floats2bfloat162_rn(first, second)));
  }
}

// The same after a ReLU; float16 saturates. NaN propagates.
template <typename T>
__device__ uint32_t pack_relu(float first, float second) {
#if __CUDA_ARCH__ >= 800
  uint32_t word;
  if constexpr (std::is_same_v<T, __half>) {
    asm("min.NaN.f32 %0, %0, 0f477FE000;" : "+f"(first));
    asm("min.NaN.f32 %0, %0, 0f477FE000;" : "+f"(second));
    asm("cvt.rn.relu.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
  } else {
    asm("cvt.rn.relu.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
  }
  return word;
#else
  return 0;
#endif
}

// Rounds to nearest; float16 saturates. NaN propagates.
template <typename T>
__device__ uint32_t pack_finite(float first, float second) {
  const uint32_t word = pack<T>(first, second);
#if __CUDA_ARCH__ >= 800
  if constexpr (std::is_same_v<T, __half>) {
    return as_word(__hmax2_nan(__hmin2_nan(as_pair<T>(word), as_pair<T>(0x7bff7bff)), as_pair<T>(0xfbfffbff)));
  }
#endif
  return word;
}

// a * b + c with one rounding.
template <typename T>
__device__ uint32_t packed_multiply_add(uint32_t a, uint32_t b, uint32_t c) {
  SA_LAYERS_PACKED(return as_word(__hfma2(as_pair<T>(a), as_pair<T>(b), as_pair<T>(c))));
}

// The same after a ReLU; float16 as in pack_relu.
template <typename T>
__device__ uint32_t packed_multiply_add_relu(uint32_t a, uint32_t b, uint32_t c) {
#if __CUDA_ARCH__ >= 800
  const auto result = __hfma2_relu(as_pair<T>(a), as_pair<T>(b), as_pair<T>(c));
  if constexpr (std::is_same_v<T, __half>) {
    return as_word(__hmin2_nan(result, as_pair<T>(0x7bff7bff)));
  } else {
    return as_word(result);
  }
#else
  return 0;
#endif
}

// 2 to the power of `exponent`, accurate to two units in the last place.
__device__ inline float power_of_two(float exponent) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(exponent));
  return power;
}

// Accurate to one unit in the last place.
__device__ inline float reciprocal(float number) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(number));
  return result;
}

#undef SA_LAYERS_PACKED

}  // namespace sa_layers::cuda
