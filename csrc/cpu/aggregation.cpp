// Bindings of aggregation and its gradients.

#include "cpu/aggregation_operators.h"
#include "cpu/binding.h"

#define SA_LAYERS_KERNELS "cpu/aggregation_kernels.inc"
#include "cpu/for_each_capability.inc"

namespace sa_layers::cpu {

Tensor aggregation(const Tensor& value, const Tensor& weight, const Pair& kernel_size, const Pair& stride,
                   const Pair& dilation, const std::string& padding_mode) {
  check_dims("value", value, 4);
  const auto footprint = make_footprint(value.size(2), value.size(3), kernel_size, stride, dilation, padding_mode);
  const Aggregation problem = check_aggregation("value", value, "weight", weight, footprint);
  const Tensor values = torch::stable::contiguous(value), weights = torch::stable::contiguous(weight);
  const Tensor output = torch::stable::new_empty(value, output_shape(problem));
  dispatch("value", value, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const AggregationTasks tasks(problem, /*whole_maps=*/false);
    run(tasks, [&](int64_t begin, int64_t end) {
      SA_LAYERS_BEST(T, aggregation, tasks, data<T>(values), data<T>(weights), mutable_data<T>(output), begin, end);
    });
  });
  return output;
}

Tensor aggregation_value_gradient(const Tensor& grad_output, const Tensor& weight, int64_t height, int64_t width,
                                  const Pair& kernel_size, const Pair& stride, const Pair& dilation,
                                  const std::string& padding_mode) {
  const auto footprint = make_footprint(height, width, kernel_size, stride, dilation, padding_mode);
  const Aggregation problem = check_aggregation("grad_output", grad_output, "weight", weight, footprint);
  check_shape("grad_output", grad_output, output_shape(problem));
  const Tensor gradients = torch::stable::contiguous(grad_output), weights = torch::stable::contiguous(weight);
  const Tensor result = torch::stable::new_empty(grad_output, value_shape(problem));
  dispatch("grad_output", grad_output, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const AggregationTasks tasks(problem, /*whole_maps=*/true);
    run(tasks, [&](int64_t begin, int64_t end) {
      SA_LAYERS_BEST(T, aggregation_value_gradient, tasks, data<T>(gradients), data<T>(weights),
                     mutable_data<T>(result), begin, end);
    });
  });
  return result;
}

Tensor aggregation_weight_gradient(const Tensor& grad_output, const Tensor& value, int64_t weight_channels,
                                   const Pair& kernel_size, const Pair& stride, const Pair& dilation,
                                   const std::string& padding_mode) {
  check_dims("value", value, 4);
  const auto footprint = make_footprint(value.size(2), value.size(3), kernel_size, stride, dilation, padding_mode);
  const Aggregation problem = check_weight_gradient(grad_output, value, weight_channels, footprint);
  const Tensor gradients = torch::stable::contiguous(grad_output), values = torch::stable::contiguous(value);
  const Tensor result = torch::stable::new_empty(value, weight_shape(problem));
  dispatch("value", value, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const AggregationTasks tasks(problem, /*whole_maps=*/false);
    run(tasks, [&](int64_t begin, int64_t end) {
      SA_LAYERS_BEST(T, aggregation_weight_gradient, tasks, data<T>(gradients), data<T>(values),
                     mutable_data<T>(result), begin, end);
    });
  });
  return result;
}

}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("aggregation", TORCH_BOX(&sa_layers::cpu::aggregation));
  library.impl("aggregation_value_gradient", TORCH_BOX(&sa_layers::cpu::aggregation_value_gradient));
  library.impl("aggregation_weight_gradient", TORCH_BOX(&sa_layers::cpu::aggregation_weight_gradient));
}
