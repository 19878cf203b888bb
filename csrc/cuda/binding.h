// From tensors to what the launchers take: shared by the bindings of all CUDA operators.
#pragma once

#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "checks.h"
#include "cuda/aggregation.h"

namespace sa_layers::cuda {

inline Element element_of(const char* name, const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return Element::kFloat32;
    case ScalarType::Double:
      return Element::kFloat64;
    case ScalarType::Half:
      return Element::kFloat16;
    case ScalarType::BFloat16:
      return Element::kBFloat16;
    default:
      STD_TORCH_CHECK(false, name, " must be float32, float64, float16 or bfloat16, got ",
                      torch::headeronly::toString(tensor.scalar_type()));
  }
}

// The dtype that sums are kept in.
inline ScalarType compute_dtype(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Makes a tensor's device the current one and finds torch's current stream there, for the life of the object.
class DeviceOf {
 public:
  explicit DeviceOf(const Tensor& tensor) : guard_(tensor.get_device_index()) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }
  cudaStream_t stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

inline std::vector<int64_t> value_shape(const Aggregation& problem) {
  return {problem.batch, problem.channels, problem.footprint.rows.size, problem.footprint.columns.size};
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

// The problem of an operator whose operands are a map, (N, C, ...), and weights, once they have passed the checks.
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

}  // namespace sa_layers::cuda
