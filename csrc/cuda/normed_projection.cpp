// Binding of normed_projection.

#include "cuda/normed_projection.h"

#include "cuda/binding.h"
#include "operands/linear.h"

namespace sa_layers::cuda {
namespace {

bool normed_projection(const Tensor& features, const Tensor& weight, const Tensor& bias, const Tensor& scale,
                       const Tensor& shift, const Tensor& result) {
  check_normed_projection(features, weight, bias, scale, shift, result);
  const int64_t channels = features.size(3), out_channels = weight.size(1);
  const DeviceOf device(features);
  const Tensor from = torch::stable::contiguous(features), weights = torch::stable::contiguous(weight),
               biases = torch::stable::contiguous(bias), scales = torch::stable::contiguous(scale),
               shifts = torch::stable::contiguous(shift);
  const NormedProjection problem = {features.size(0) * features.size(1) * features.size(2),
                                    channels,
                                    out_channels,
                                    from.const_data_ptr(),
                                    weights.const_data_ptr(),
                                    biases.const_data_ptr(),
                                    scales.const_data_ptr(),
                                    shifts.const_data_ptr(),
                                    result.mutable_data_ptr()};
  bool launched = false;
  STD_CUDA_CHECK(launch_normed_projection(problem, element_of("features", features), device.stream(), launched));
  return launched;
}

}  // namespace
}  // namespace sa_layers::cuda

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CUDA, library) {
  library.impl("normed_projection", TORCH_BOX(&sa_layers::cuda::normed_projection));
}
