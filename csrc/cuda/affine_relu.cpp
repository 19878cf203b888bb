// Bindings of affine_relu and its form in place.

#include "cuda/affine_relu.h"

#include "cuda/binding.h"
#include "operands/linear.h"

namespace sa_layers::cuda {
namespace {

void compute(const Tensor& features, const Tensor& scale, const Tensor& shift, const Tensor& result) {
  const DeviceOf device(features);
  const Tensor scales = torch::stable::contiguous(scale), shifts = torch::stable::contiguous(shift);
  STD_CUDA_CHECK(launch_affine_relu(features.size(0) * features.size(1) * features.size(2), features.size(3),
                                    element_of("features", features), features.const_data_ptr(),
                                    scales.const_data_ptr(), shifts.const_data_ptr(), result.mutable_data_ptr(),
                                    device.stream()));
}

Tensor affine_relu(const Tensor& features, const Tensor& scale, const Tensor& shift) {
  check_affine_relu(features, scale, shift);
  const Tensor from = torch::stable::contiguous(features),
               result = torch::stable::new_empty(features, shape_of(features));
  compute(from, scale, shift, result);
  return result;
}

void affine_relu_(const Tensor& features, const Tensor& scale, const Tensor& shift) {
  check_affine_relu(features, scale, shift);
  check_contiguous("features", features);
  compute(features, scale, shift, features);
}

}  // namespace
}  // namespace sa_layers::cuda

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CUDA, library) {
  library.impl("affine_relu", TORCH_BOX(&sa_layers::cuda::affine_relu));
  library.impl("affine_relu_", TORCH_BOX(&sa_layers::cuda::affine_relu_));
}
