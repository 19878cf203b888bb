// Weights and biases as modules hold them.
#pragma once

#include "buffer.h"
#include "cuda/common/element.cuh"
#include "cuda/common/plan.h"

namespace sa_layers::cuda {

// Random numbers between -scale and scale, in the dtype of the maps or in that of accumulation.
template <typename T>
class RandomParameter {
 public:
  RandomParameter(int64_t size, double scale)
      : in_map_dtype_(pick(0, 1)), narrow_(in_map_dtype_ ? size : 0, 0), wide_(in_map_dtype_ ? 0 : size, 0) {
    narrow_.randomise(), wide_.randomise();
    for (T& number : narrow_.memory) narrow(Compute<T>(widen(number) * scale), number);
    for (Compute<T>& number : wide_.memory) number *= Compute<T>(scale);
  }
  double operator[](int64_t i) const {
    return in_map_dtype_ ? double(widen(narrow_.memory[i])) : double(wide_.memory[i]);
  }
  LayerParameter parameter() const {
    return {in_map_dtype_ ? static_cast<const void*>(narrow_.memory.data()) : wide_.memory.data(), in_map_dtype_};
  }

 private:
  bool in_map_dtype_;
  Buffer<T> narrow_;
  Buffer<Compute<T>> wide_;
};

}  // namespace sa_layers::cuda
