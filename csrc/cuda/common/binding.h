// From tensors to the arguments of launchers: shared by the bindings of all CUDA operators.
#pragma once

#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include <cstdint>
#include <string>

#include "checks.h"
#include "cuda/common/plan.h"

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

// The element type of that name.
inline Element element_named(const std::string& dtype) {
  if (dtype == "float32") return Element::kFloat32;
  if (dtype == "float64") return Element::kFloat64;
  if (dtype == "float16") return Element::kFloat16;
  STD_TORCH_CHECK(dtype == "bfloat16", "dtype must be 'float32', 'float64', 'float16' or 'bfloat16', got '", dtype,
                  "'");
  return Element::kBFloat16;
}

// A weight or a bias whose numbers the launcher reads with the tensor's strides.
inline LayerParameter layer_parameter(const Tensor& tensor, const Tensor& map) {
  return {tensor.const_data_ptr(), tensor.scalar_type() == map.scalar_type()};
}

// A size as an int; the largest one stands for those that an int cannot hold.
inline int clamp_size(int64_t size) { return int(min<int64_t>(max<int64_t>(size, 0), INT32_MAX)); }

// The side of the map that operators without tensors answer for: large enough for whole tiles.
constexpr int64_t kTypicalSide = 64;

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

}  // namespace sa_layers::cuda
