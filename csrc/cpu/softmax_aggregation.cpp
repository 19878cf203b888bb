// Bindings of softmax_aggregation and its gradients.

#include <tuple>

#include "cpu/binding.h"

#define SA_LAYERS_KERNELS "cpu/softmax_aggregation_kernels.inc"
#include "cpu/for_each_capability.inc"

namespace sa_layers::cpu {
namespace {

std::tuple<Tensor, Tensor> softmax_aggregation(const Tensor& value, const Tensor& logits, const Pair& kernel_size,
                                               const Pair& stride, const Pair& dilation,
                                               const std::string& padding_mode) {
  check_dims("value", value, 4);
  const auto footprint = make_footprint(value.size(2), value.size(3), kernel_size, stride, dilation, padding_mode);
  const Aggregation problem = check_aggregation("value", value, "logits", logits, footprint);
  STD_TORCH_CHECK(problem.channels >= problem.weight_channels, "value must have at least as many channels as logits, ",
                  problem.weight_channels, ", got ", problem.channels);  // or a logsumexp would stay unwritten
  const Tensor values = torch::stable::contiguous(value), weights = torch::stable::contiguous(logits);
  const Tensor output = torch::stable::new_empty(value, output_shape(problem));
  const Tensor logsumexp = torch::stable::new_empty(value, logsumexp_shape(problem), compute_dtype(value));
  dispatch("value", value, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const AggregationTasks tasks(problem, /*whole_maps=*/false);
    run(tasks, [&](int64_t begin, int64_t end) {
      SA_LAYERS_BEST(T, softmax_aggregation, tasks, data<T>(values), data<T>(weights), mutable_data<T>(output),
                     mutable_data<Compute<T>>(logsumexp), begin, end);
    });
  });
  return {output, logsumexp};
}

Tensor softmax_aggregation_value_gradient(const Tensor& grad_output, const Tensor& logits, const Tensor& logsumexp,
                                          int64_t height, int64_t width, const Pair& kernel_size, const Pair& stride,
                                          const Pair& dilation, const std::string& padding_mode) {
  const auto footprint = make_footprint(height, width, kernel_size, stride, dilation, padding_mode);
  const Aggregation problem = check_aggregation("grad_output", grad_output, "logits", logits, footprint);
  check_shape("grad_output", grad_output, output_shape(problem));
  check_logsumexp(logsumexp, logits, problem);
  const Tensor gradients = torch::stable::contiguous(grad_output), weights = torch::stable::contiguous(logits);
  const Tensor normalizers = torch::stable::contiguous(logsumexp);
  const Tensor result = torch::stable::new_empty(grad_output, value_shape(problem));
  dispatch("grad_output", grad_output, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const AggregationTasks tasks(problem, /*whole_maps=*/true);
    run(tasks, [&](int64_t begin, int64_t end) {
      SA_LAYERS_BEST(T, softmax_aggregation_value_gradient, tasks, data<T>(gradients), data<T>(weights),
                     data<Compute<T>>(normalizers), mutable_data<T>(result), begin, end);
    });
  });
  return result;
}

Tensor softmax_aggregation_logits_gradient(const Tensor& grad_output, const Tensor& value, const Tensor& logits,
                                           const Tensor& output, const Tensor& logsumexp, const Pair& kernel_size,
                                           const Pair& stride, const Pair& dilation, const std::string& padding_mode) {
  check_dims("value", value, 4);
  const auto footprint = make_footprint(value.size(2), value.size(3), kernel_size, stride, dilation, padding_mode);
  const Aggregation problem = check_aggregation("value", value, "logits", logits, footprint);
  for (const auto& [name, tensor] :
       {std::pair<const char*, const Tensor&>{"grad_output", grad_output}, {"output", output}}) {
    check_shape(name, tensor, output_shape(problem));
    check_like(name, tensor, "value", value);
  }
  check_logsumexp(logsumexp, logits, problem);
  const Tensor gradients = torch::stable::contiguous(grad_output), values = torch::stable::contiguous(value);
  const Tensor weights = torch::stable::contiguous(logits), outputs = torch::stable::contiguous(output);
  const Tensor normalizers = torch::stable::contiguous(logsumexp);
  const Tensor result = torch::stable::new_empty(logits, weight_shape(problem));
  dispatch("value", value, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const AggregationTasks tasks(problem, /*whole_maps=*/false);
    run(tasks, [&](int64_t begin, int64_t end) {
      SA_LAYERS_BEST(T, softmax_aggregation_logits_gradient, tasks, data<T>(gradients), data<T>(values),
                     data<T>(weights), data<T>(outputs), data<Compute<T>>(normalizers), mutable_data<T>(result), begin,
                     end);
    });
  });
  return result;
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("softmax_aggregation", TORCH_BOX(&sa_layers::cpu::softmax_aggregation));
  library.impl("softmax_aggregation_value_gradient", TORCH_BOX(&sa_layers::cpu::softmax_aggregation_value_gradient));
  library.impl("softmax_aggregation_logits_gradient", TORCH_BOX(&sa_layers::cpu::softmax_aggregation_logits_gradient));
}
