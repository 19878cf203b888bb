// Reading the weights and biases of linear layers in the dtype of accumulation.
#pragma once

#include <cstdint>

#include "cuda/common/element.cuh"
#include "cuda/common/plan.h"

namespace sa_layers::cuda {

// A number of a parameter, for maps of type T.
template <typename T>
__device__ Compute<T> load_number(const LayerParameter& parameter, int64_t index) {
  if (parameter.in_map_dtype) return widen(static_cast<const T*>(parameter.numbers)[index]);
  return static_cast<const Compute<T>*>(parameter.numbers)[index];
}

}  // namespace sa_layers::cuda
