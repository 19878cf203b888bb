// From tensors to typed pointers and tasks: what the bindings of all CPU operators share.
#pragma once

#include <type_traits>

#include "checks.h"
#include "cpu/aggregation.h"
#include "cpu/capability.h"

namespace sa_layers::cpu {

template <typename T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}
template <typename T>
T* mutable_data(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
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

// The dtype that sums are kept in.
inline ScalarType compute_dtype(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Numbers that apply to every pixel of a map: in the dtype that sums are kept in.
inline void check_coefficients(const char* name, const Tensor& tensor, const Tensor& map,
                               const std::vector<int64_t>& shape) {
  check_shape(name, tensor, shape);
  STD_TORCH_CHECK(tensor.scalar_type() == compute_dtype(map), name, " must be ",
                  torch::headeronly::toString(compute_dtype(map)), ", got ",
                  torch::headeronly::toString(tensor.scalar_type()));
  STD_TORCH_CHECK(tensor.device() == map.device(), name, " must be on the device of its map");
}

inline std::vector<int64_t> weight_shape(const Aggregation& problem) {
  return {problem.batch, problem.weight_channels, problem.footprint.taps(), problem.footprint.output_pixels()};
}
inline std::vector<int64_t> logsumexp_shape(const Aggregation& problem) {
  return {problem.batch, problem.weight_channels, problem.footprint.output_pixels()};
}
inline std::vector<int64_t> output_shape(const Aggregation& problem) {
  return {problem.batch, problem.channels, problem.footprint.rows.output_size(),
          problem.footprint.columns.output_size()};
}
inline std::vector<int64_t> value_shape(const Aggregation& problem) {
  return {problem.batch, problem.channels, problem.footprint.rows.size, problem.footprint.columns.size};
}

// Runs kernel(first task, task after the last) over all tasks, in torch's threads.
template <typename Kernel>
void run(const AggregationTasks& tasks, const Kernel& kernel) {
  torch::stable::parallel_for(0, tasks.count(), tasks.grain(), kernel);
}

// Operands of an aggregation that have passed the checks, for an operator that is given the map's size.
inline Aggregation check_aggregation(const char* map_name, const Tensor& map, const char* weight_name,
                                     const Tensor& weight, const Footprint& footprint) {
  check_dims(map_name, map, 4);
  check_dims(weight_name, weight, 4);
  check_like(weight_name, weight, map_name, map);
  STD_TORCH_CHECK(weight.size(1) > 0, weight_name, " must have at least one channel, got 0");
  const Aggregation problem{footprint, map.size(0), map.size(1), weight.size(1)};
  check_shape(weight_name, weight, weight_shape(problem));
  return problem;
}

}  // namespace sa_layers::cpu
