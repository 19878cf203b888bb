// Bindings of aggregation and its gradients.

#include "cuda/binding.h"
#include "cuda/operators.h"

namespace sa_layers::cuda {

Tensor aggregation(const Tensor& value, const Tensor& weight, const Pair& kernel_size, const Pair& stride,
                   const Pair& dilation, const std::string& padding_mode) {
  check_dims("value", value, 4);
  const auto footprint = make_footprint(value.size(2), value.size(3), kernel_size, stride, dilation, padding_mode);
  const Aggregation problem = check_aggregation("value", value, "weight", weight, footprint);
  const DeviceOf device(value);
  const Tensor values = torch::stable::contiguous(value), weights = torch::stable::contiguous(weight);
  const Tensor output = torch::stable::new_empty(value, output_shape(problem));
  STD_CUDA_CHECK(launch_aggregation(problem, element_of("value", value), values.const_data_ptr(),
                                    weights.const_data_ptr(), output.mutable_data_ptr(), device.stream()));
  return output;
}

Tensor aggregation_value_gradient(const Tensor& grad_output, const Tensor& weight, int64_t height, int64_t width,
                                  const Pair& kernel_size, const Pair& stride, const Pair& dilation,
                                  const std::string& padding_mode) {
  const auto footprint = make_footprint(height, width, kernel_size, stride, dilation, padding_mode);
  const Aggregation problem = check_aggregation("grad_output", grad_output, "weight", weight, footprint);
  check_shape("grad_output", grad_output, output_shape(problem));
  const DeviceOf device(grad_output);
  const Tensor gradients = torch::stable::contiguous(grad_output), weights = torch::stable::contiguous(weight);
  const Tensor result = torch::stable::new_empty(grad_output, value_shape(problem));
  STD_CUDA_CHECK(launch_aggregation_value_gradient(problem, element_of("grad_output", grad_output),
                                                   gradients.const_data_ptr(), weights.const_data_ptr(),
                                                   result.mutable_data_ptr(), device.stream()));
  return result;
}

Tensor aggregation_weight_gradient(const Tensor& grad_output, const Tensor& value, int64_t weight_channels,
                                   const Pair& kernel_size, const Pair& stride, const Pair& dilation,
                                   const std::string& padding_mode) {
  check_dims("value", value, 4);
  const auto footprint = make_footprint(value.size(2), value.size(3), kernel_size, stride, dilation, padding_mode);
  const Aggregation problem = check_weight_gradient(grad_output, value, weight_channels, footprint);
  const DeviceOf device(value);
  const Tensor gradients = torch::stable::contiguous(grad_output), values = torch::stable::contiguous(value);
  const Tensor result = torch::stable::new_empty(value, weight_shape(problem));
  STD_CUDA_CHECK(launch_aggregation_weight_gradient(problem, element_of("value", value), gradients.const_data_ptr(),
                                                    values.const_data_ptr(), result.mutable_data_ptr(),
                                                    device.stream()));
  return result;
}

}  // namespace sa_layers::cuda

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CUDA, library) {
  library.impl("aggregation", TORCH_BOX(&sa_layers::cuda::aggregation));
  library.impl("aggregation_value_gradient", TORCH_BOX(&sa_layers::cuda::aggregation_value_gradient));
  library.impl("aggregation_weight_gradient", TORCH_BOX(&sa_layers::cuda::aggregation_weight_gradient));
}
