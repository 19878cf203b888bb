// From tensors to typed pointers, for the bindings of all CPU operators.
#pragma once

#include <optional>
#include <type_traits>

#include "checks.h"
#include "cpu/runtime/element.h"
#include "cpu/runtime/implementations.h"
#include "cpu/simd/dispatch.h"
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

// The tensor itself or a contiguous copy. Even for a contiguous tensor, a call of torch's contiguous() takes half a
// microsecond.
inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}
inline std::optional<Tensor> as_contiguous(const std::optional<Tensor>& tensor) {
  return tensor ? std::optional<Tensor>(as_contiguous(*tensor)) : std::nullopt;
}

// A parameter in the dtype in which its map is accumulated.
inline Tensor in_compute_dtype(const Tensor& parameter, const Tensor& map) {
  const ScalarType dtype = compute_dtype(map);
  return parameter.scalar_type() == dtype ? parameter : torch::stable::to(parameter, dtype);
}

// Calls body with a null pointer of the tensor's element type: [&](auto* element) { using T =
// std::remove_pointer_t<decltype(element)>; ... }. With SA_LAYERS_FLOAT32_ONLY no other type is compiled.
template <typename Body>
void dispatch_dtype(const char* name, const Tensor& tensor, const Body& body) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return body(static_cast<float*>(nullptr));
#ifndef SA_LAYERS_FLOAT32_ONLY
    case ScalarType::Double:
      return body(static_cast<double*>(nullptr));
    case ScalarType::Half:
      return body(static_cast<Half*>(nullptr));
    case ScalarType::BFloat16:
      return body(static_cast<BFloat16*>(nullptr));
#endif
    default:
      STD_TORCH_CHECK(false, name, " must be float32, float64, float16 or bfloat16, got ",
                      torch::headeronly::toString(tensor.scalar_type()));
  }
}

inline VectorType vector_type(ScalarType dtype) {
  const bool is_float64 = dtype == ScalarType::Double;
  return {is_float64, vector_lanes(is_float64)};
}

inline ScalarType parse_dtype(const std::string& name) {
  if (name == "float32") return ScalarType::Float;
  if (name == "float64") return ScalarType::Double;
  if (name == "float16") return ScalarType::Half;
  STD_TORCH_CHECK(name == "bfloat16", "dtype must be 'float32', 'float64', 'float16' or 'bfloat16', got '", name, "'");
  return ScalarType::BFloat16;
}

}  // namespace sa_layers::cpu
