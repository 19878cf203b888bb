// The numbers of small tensors, which are computed in float64.
#pragma once

#include <vector>

#include "cpu/runtime/tensors.h"

namespace sa_layers::cpu {

using Doubles = std::vector<double>;

// A conversion by torch takes microseconds.
inline Doubles doubles(const Tensor& tensor) {
  const Tensor values = as_contiguous(tensor);
  if (values.scalar_type() == ScalarType::Float) return {data<float>(values), data<float>(values) + values.numel()};
  const Tensor wide =
      values.scalar_type() == ScalarType::Double ? values : torch::stable::to(values, ScalarType::Double);
  return {data<double>(wide), data<double>(wide) + wide.numel()};
}

}  // namespace sa_layers::cpu
