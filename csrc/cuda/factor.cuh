// What matrix products multiply: numbers of the type of their sums, or those that tensor cores read.
#pragma once

#include "cuda/four.cuh"
#include "cuda/tensor_core.cuh"

namespace sa_layers::cuda {

// The factors of products for maps of type T: float32 becomes TF32 for tensor cores, half precision stays.
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

// Factors, or sums, of shared memory, which has the alignment of one instruction.
template <typename F>
struct alignas(sizeof(F) < 4 ? 4 * sizeof(F) : 16) FourFactors {
  F of[4];
};
template <typename F>
struct alignas(2 * sizeof(F)) Two {
  F of[2];
};

// What float16 has no room for becomes the largest that it has, or a difference of infinities would be NaN in the next
// layer. A NaN stays one.
template <typename F>
constexpr float kLargestFactor = std::is_same_v<F, __half> ? 65504.0f : 0.0f;

// For numbers that are not negative, as ReLUs leave them.
template <typename C, typename F>
__device__ void round_to_factor(C number, F& factor) {
  if (kLargestFactor<F> > 0 && number > C(kLargestFactor<F>)) number = C(kLargestFactor<F>);
  narrow(number, factor);
}

template <typename C, typename F>
__device__ void store_factors(const Four<C>& numbers, F* to) {
  FourFactors<F> factors;
#pragma unroll
  for (int i = 0; i < 4; ++i) round_to_factor(numbers.of[i], factors.of[i]);
  *reinterpret_cast<FourFactors<F>*>(to) = factors;
}

}  // namespace sa_layers::cuda
