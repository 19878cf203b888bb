// Bindings of softmax_aggregation and its gradients.

#include "cuda/softmax_aggregation.h"

#include <tuple>

#include "cuda/binding.h"

namespace sa_layers::cuda {
namespace {

std::tuple<Tensor, Tensor> softmax_aggregation(const Tensor& value, const Tensor& logits, const Pair& kernel_size,
                                               const Pair& stride, const Pair& dilation,
                                               const std::string& padding_mode) {
  check_dims("value", value, 4);
  const auto footprint = make_footprint(value.size(2), value.size(3), kernel_size, stride, dilation, padding_mode);
  const Aggregation problem = check_aggregation("value", value, "logits", logits, footprint);
  STD_TORCH_CHECK(problem.channels >= problem.weight_channels, "value must have at least as many channels as logits, ",
                  problem.weight_channels, ", got ", problem.channels);  // or a logsumexp would stay unwritten
  const DeviceOf device(value);
  const Tensor values = torch::stable::contiguous(value), weights = torch::stable::contiguous(logits);
  const Tensor output = torch::stable::new_empty(value, output_shape(problem));
  const Tensor logsumexp = torch::stable::new_empty(value, logsumexp_shape(problem), compute_dtype(value));
  STD_CUDA_CHECK(launch_softmax_aggregation(problem, element_of("value", value), values.const_data_ptr(),
                                            weights.const_data_ptr(), output.mutable_data_ptr(),
                                            logsumexp.mutable_data_ptr(), device.stream()));
  return {output, logsumexp};
}

Tensor softmax_aggregation_value_gradient(const Tensor& grad_output, const Tensor& logits, const Tensor& logsumexp,
                                          int64_t height, int64_t width, const Pair& kernel_size, const Pair& stride,
                                          const Pair& dilation, const std::string& padding_mode) {
  const auto footprint = make_footprint(height, width, kernel_size, stride, dilation, padding_mode);
  const Aggregation problem = check_aggregation("grad_output", grad_output, "logits", logits, footprint);
  check_shape("grad_output", grad_output, output_shape(problem));
  check_logsumexp(logsumexp, logits, problem);
  const DeviceOf device(grad_output);
  const Tensor gradients = torch::stable::contiguous(grad_output), weights = torch::stable::contiguous(logits);
  const Tensor normalizers = torch::stable::contiguous(logsumexp);
  const Tensor result = torch::stable::new_empty(grad_output, value_shape(problem));
  STD_CUDA_CHECK(launch_softmax_aggregation_value_gradient(
      problem, element_of("grad_output", grad_output), gradients.const_data_ptr(), weights.const_data_ptr(),
      normalizers.const_data_ptr(), result.mutable_data_ptr(), device.stream()));
  return result;
}

Tensor softmax_aggregation_logits_gradient(const Tensor& grad_output, const Tensor& value, const Tensor& logits,
                                           const Tensor& output, const Tensor& logsumexp, const Pair& kernel_size,
                                           const Pair& stride, const Pair& dilation, const std::string& padding_mode) {
  check_dims("value", value, 4);
  const auto footprint = make_footprint(value.size(2), value.size(3), kernel_size, stride, dilation, padding_mode);
  const Aggregation problem = check_aggregation("value", value, "logits", logits, footprint);
  check_shape("grad_output", grad_output, output_shape(problem));
  check_like("grad_output", grad_output, "value", value);
  check_shape("output", output, output_shape(problem));
  check_like("output", output, "value", value);
  check_logsumexp(logsumexp, logits, problem);
  const DeviceOf device(value);
  const Tensor gradients = torch::stable::contiguous(grad_output), values = torch::stable::contiguous(value);
  const Tensor weights = torch::stable::contiguous(logits), outputs = torch::stable::contiguous(output);
  const Tensor normalizers = torch::stable::contiguous(logsumexp);
  const Tensor result = torch::stable::new_empty(logits, weight_shape(problem));
  STD_CUDA_CHECK(launch_softmax_aggregation_logits_gradient(
      problem, element_of("value", value), gradients.const_data_ptr(), values.const_data_ptr(),
      weights.const_data_ptr(), outputs.const_data_ptr(), normalizers.const_data_ptr(), result.mutable_data_ptr(),
      device.stream()));
  return result;
}

}  // namespace
}  // namespace sa_layers::cuda

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CUDA, library) {
  library.impl("softmax_aggregation", TORCH_BOX(&sa_layers::cuda::softmax_aggregation));
  library.impl("softmax_aggregation_value_gradient", TORCH_BOX(&sa_layers::cuda::softmax_aggregation_value_gradient));
  library.impl("softmax_aggregation_logits_gradient", TORCH_BOX(&sa_layers::cuda::softmax_aggregation_logits_gradient));
}
