// The operands of matrix products: numbers of the accumulator's type, or those that tensor cores read.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/common/element.cuh"
#include "cuda/common/half2.cuh"
#include "cuda/common/mma.cuh"
#include "cuda/common/pack.cuh"

namespace sa_layers::cuda {

// The operand type of products for maps of type T: TF32 for float32 on tensor cores.
template <typename T, bool kTensorCores>
struct FactorType {
  using type = Compute<T>;
};
template <typename T>
struct FactorType<T, true> {
  using type = T;
};
template <>
struct FactorType<float, true> {
  using type = TensorFloat;
};
template <typename T, bool kTensorCores>
using Factor = typename FactorType<T, kTensorCores>::type;

// float16 operands saturate, since a difference of infinities would be NaN in the next layer. NaN propagates.
template <typename F>
constexpr float kLargestFactor = std::is_same_v<F, __half> ? 65504.0f : 0.0f;

// For non-negative numbers, the results of ReLUs.
template <typename C, typename F>
__device__ void round_to_factor(C number, F& factor) {
  if (kLargestFactor<F> > 0 && number > C(kLargestFactor<F>)) number = C(kLargestFactor<F>);
  narrow(number, factor);
}

template <typename C, typename F>
__device__ void store_factors(const Pack<C, 4>& numbers, F* to) {
  Pack<F, 4> factors;
#pragma unroll
  for (int i = 0; i < 4; ++i) round_to_factor(numbers[i], factors[i]);
  *reinterpret_cast<Pack<F, 4>*>(to) = factors;
}

// A parameter as an operand: saturated on both sides.
template <typename T>
__device__ T factor_of(float number) {
  if (kLargestFactor<T> > 0 && number < -kLargestFactor<T>) number = -kLargestFactor<T>;
  T factor;
  round_to_factor(number, factor);
  return factor;
}

template <typename T>
__device__ uint32_t pack_factors(float first, float second) {
  return pack<T>(widen(factor_of<T>(first)), widen(factor_of<T>(second)));
}

}  // namespace sa_layers::cuda
