// Parameters as the factors of the banded kernels' products: in half precision, and no infinity.
#pragma once

#include "cuda/factor.cuh"
#include "cuda/packed_pair.cuh"

namespace sa_layers::cuda {

// What tensor cores can multiply: no infinity.
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
