// From tensors to typed pointers and tasks: what the bindings of all CPU operators share.
#pragma once

#include <optional>
#include <type_traits>

#include "cpu/aggregation.h"
#include "cpu/capability.h"
#include "operands/aggregation.h"

namespace sa_layers::cpu {

template <typename T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}
template <typename T>
T* mutable_data(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// The tensor itself, or a contiguous copy. A call of torch's contiguous() costs half a microsecond even for nothing.
inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}
inline std::optional<Tensor> as_contiguous(const std::optional<Tensor>& tensor) {
  return tensor ? std::optional<Tensor>(as_contiguous(*tensor)) : std::nullopt;
}

// Calls body with a null pointer of the tensor's element type: [&](auto* element) { using T = Element<element>; ... }.
template <typename Body>
void dispatch(const char* name, const Tensor& tensor, const Body& body) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return body(static_cast<float*>(nullptr));
    case ScalarType::Double:
      return body(static_cast<double*>(nullptr));
    case ScalarType::Half:
      return body(static_cast<Half*>(nullptr));
    case ScalarType::BFloat16:
      return body(static_cast<BFloat16*>(nullptr));
    default:
      STD_TORCH_CHECK(false, name, " must be float32, float64, float16 or bfloat16, got ",
                      torch::headeronly::toString(tensor.scalar_type()));
  }
}

// Runs kernel(first task, task after the last) over all tasks, in torch's threads.
template <typename Kernel>
void run(const AggregationTasks& tasks, const Kernel& kernel) {
  torch::stable::parallel_for(0, tasks.count(), tasks.grain(), kernel);
}

}  // namespace sa_layers::cpu
