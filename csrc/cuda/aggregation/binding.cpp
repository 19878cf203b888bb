// Bindings of aggregation, softmax_aggregation, pairwise_relation and their gradients.

#include "cuda/common/binding.h"

#include <tuple>

#include "cuda/aggregation/launch.h"
#include "operands/aggregation.h"

namespace sa_layers::cuda {

namespace {

// For relations, in which the channels share no weights or all of them.
const char* const kNoGroups = "interleaved";

Tensor aggregation(const Tensor& value, const Tensor& weight, const Pair& kernel_size, const Pair& stride,
                   const Pair& dilation, const std::string& padding_mode, const std::string& groups) {
  check_dims("value", value, 4);
  const auto footprint =
      make_footprint(value.size(2), value.size(3), kernel_size, stride, dilation, padding_mode, /*clamp_allowed=*/true);
  const Aggregation problem = check_aggregation("value", value, "weight", weight, footprint, groups);
  const DeviceOf device(value);
  const Tensor values = torch::stable::contiguous(value), weights = torch::stable::contiguous(weight);
  const Tensor output = torch::stable::new_empty(value, output_shape(problem));
  STD_CUDA_CHECK(launch_aggregation(problem, element_of("value", value), values.const_data_ptr(),
                                    weights.const_data_ptr(), output.mutable_data_ptr(), device.stream()));
  return output;
}

Tensor aggregation_value_gradient(const Tensor& grad_output, const Tensor& weight, int64_t height, int64_t width,
                                  const Pair& kernel_size, const Pair& stride, const Pair& dilation,
                                  const std::string& padding_mode, const std::string& groups) {
  const auto footprint =
      make_footprint(height, width, kernel_size, stride, dilation, padding_mode, /*clamp_allowed=*/true);
  const Aggregation problem = check_aggregation("grad_output", grad_output, "weight", weight, footprint, groups);
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
                                   const std::string& padding_mode, const std::string& groups) {
  check_dims("value", value, 4);
  const auto footprint =
      make_footprint(value.size(2), value.size(3), kernel_size, stride, dilation, padding_mode, /*clamp_allowed=*/true);
  const Aggregation problem = check_weight_gradient(grad_output, value, weight_channels, footprint, groups);
  const DeviceOf device(value);
  const Tensor gradients = torch::stable::contiguous(grad_output), values = torch::stable::contiguous(value);
  const Tensor result = torch::stable::new_empty(value, weight_shape(problem));
  STD_CUDA_CHECK(launch_aggregation_weight_gradient(problem, element_of("value", value), gradients.const_data_ptr(),
                                                    values.const_data_ptr(), result.mutable_data_ptr(),
                                                    device.stream()));
  return result;
}

std::tuple<Tensor, Tensor, Tensor> softmax_aggregation(const Tensor& value, const Tensor& logits,
                                                       const Pair& kernel_size, const Pair& stride,
                                                       const Pair& dilation, const std::string& padding_mode,
                                                       const std::string& groups) {
  check_dims("value", value, 4);
  const auto footprint =
      make_footprint(value.size(2), value.size(3), kernel_size, stride, dilation, padding_mode, /*clamp_allowed=*/true);
  const Aggregation problem = check_aggregation("value", value, "logits", logits, footprint, groups);
  STD_TORCH_CHECK(problem.channels >= problem.weight_channels, "value must have at least as many channels as logits, ",
                  problem.weight_channels, ", got ", problem.channels);  // or some normalizers would stay unwritten
  const DeviceOf device(value);
  const Tensor values = torch::stable::contiguous(value), weights = torch::stable::contiguous(logits);
  const Tensor output = torch::stable::new_empty(value, output_shape(problem));
  const Tensor max_logits = torch::stable::new_empty(value, softmax_shape(problem), compute_dtype(value));
  const Tensor normalizers = torch::stable::new_empty(value, softmax_shape(problem), compute_dtype(value));
  STD_CUDA_CHECK(launch_softmax_aggregation(
      problem, element_of("value", value), values.const_data_ptr(), weights.const_data_ptr(), output.mutable_data_ptr(),
      max_logits.mutable_data_ptr(), normalizers.mutable_data_ptr(), device.stream()));
  return {output, max_logits, normalizers};
}

Tensor softmax_aggregation_value_gradient(const Tensor& grad_output, const Tensor& logits, const Tensor& max_logits,
                                          const Tensor& normalizers, int64_t height, int64_t width,
                                          const Pair& kernel_size, const Pair& stride, const Pair& dilation,
                                          const std::string& padding_mode, const std::string& groups) {
  const auto footprint =
      make_footprint(height, width, kernel_size, stride, dilation, padding_mode, /*clamp_allowed=*/true);
  const Aggregation problem = check_aggregation("grad_output", grad_output, "logits", logits, footprint, groups);
  check_shape("grad_output", grad_output, output_shape(problem));
  check_softmax(max_logits, normalizers, logits, problem);
  const DeviceOf device(grad_output);
  const Tensor gradients = torch::stable::contiguous(grad_output), weights = torch::stable::contiguous(logits);
  const Tensor maxima = torch::stable::contiguous(max_logits), divisors = torch::stable::contiguous(normalizers);
  const Tensor result = torch::stable::new_empty(grad_output, value_shape(problem));
  STD_CUDA_CHECK(launch_softmax_aggregation_value_gradient(
      problem, element_of("grad_output", grad_output), gradients.const_data_ptr(), weights.const_data_ptr(),
      maxima.const_data_ptr(), divisors.const_data_ptr(), result.mutable_data_ptr(), device.stream()));
  return result;
}

Tensor softmax_aggregation_logits_gradient(const Tensor& grad_output, const Tensor& value, const Tensor& logits,
                                           const Tensor& max_logits, const Tensor& normalizers, const Pair& kernel_size,
                                           const Pair& stride, const Pair& dilation, const std::string& padding_mode,
                                           const std::string& groups) {
  check_dims("value", value, 4);
  const auto footprint =
      make_footprint(value.size(2), value.size(3), kernel_size, stride, dilation, padding_mode, /*clamp_allowed=*/true);
  const Aggregation problem = check_aggregation("value", value, "logits", logits, footprint, groups);
  check_shape("grad_output", grad_output, output_shape(problem));
  check_like("grad_output", grad_output, "value", value);
  check_softmax(max_logits, normalizers, logits, problem);
  const DeviceOf device(value);
  const Tensor gradients = torch::stable::contiguous(grad_output), values = torch::stable::contiguous(value);
  const Tensor weights = torch::stable::contiguous(logits);
  const Tensor maxima = torch::stable::contiguous(max_logits), divisors = torch::stable::contiguous(normalizers);
  const Tensor result = torch::stable::new_empty(logits, weight_shape(problem));
  STD_CUDA_CHECK(launch_softmax_aggregation_logits_gradient(
      problem, element_of("value", value), gradients.const_data_ptr(), values.const_data_ptr(),
      weights.const_data_ptr(), maxima.const_data_ptr(), divisors.const_data_ptr(), result.mutable_data_ptr(),
      device.stream()));
  return result;
}

Tensor centres_of(const Tensor& query, const Aggregation& problem) {
  const Tensor queries = torch::stable::contiguous(query);
  if (problem.footprint.rows.stride == 1 && problem.footprint.columns.stride == 1) return queries;
  const DeviceOf device(query);
  const Tensor centres = torch::stable::new_empty(query, output_shape(problem));
  STD_CUDA_CHECK(launch_centres(problem, element_of("query", query), queries.const_data_ptr(),
                                centres.mutable_data_ptr(), device.stream()));
  return centres;
}

Tensor pairwise_relation(const Tensor& query, const Tensor& key, const Pair& kernel_size,
                         const std::string& relation_name, const Pair& stride, const Pair& dilation,
                         const std::string& padding_mode) {
  const Relation relation = parse_relation(relation_name);
  check_dims("query", query, 4);
  const auto footprint =
      make_footprint(query.size(2), query.size(3), kernel_size, stride, dilation, padding_mode, /*clamp_allowed=*/true);
  const Aggregation problem = check_relation(query, key, footprint);
  if (relation == Relation::kDot) {
    return aggregation_weight_gradient(centres_of(query, problem), key, 1, kernel_size, stride, dilation, padding_mode,
                                       kNoGroups);
  }
  const DeviceOf device(query);
  const Tensor queries = torch::stable::contiguous(query), keys = torch::stable::contiguous(key);
  const Tensor result = torch::stable::new_empty(query, relation_shape(problem, relation));
  STD_CUDA_CHECK(launch_pairwise_relation(problem, relation, element_of("query", query), queries.const_data_ptr(),
                                          keys.const_data_ptr(), result.mutable_data_ptr(), device.stream()));
  return result;
}

Tensor pairwise_relation_query_gradient(const Tensor& grad_output, const Tensor& key, int64_t height, int64_t width,
                                        const Pair& kernel_size, const std::string& relation_name, const Pair& stride,
                                        const Pair& dilation, const std::string& padding_mode) {
  const Relation relation = parse_relation(relation_name);
  const auto footprint =
      make_footprint(height, width, kernel_size, stride, dilation, padding_mode, /*clamp_allowed=*/true);
  const Aggregation problem = check_relation_gradient(grad_output, "key", key, relation, footprint);
  const DeviceOf device(key);
  const Tensor gradients = torch::stable::contiguous(grad_output), keys = torch::stable::contiguous(key);
  const Tensor result = torch::stable::new_empty(key, value_shape(problem));
  STD_CUDA_CHECK(launch_pairwise_relation_query_gradient(problem, relation, element_of("key", key),
                                                         gradients.const_data_ptr(), keys.const_data_ptr(),
                                                         result.mutable_data_ptr(), device.stream()));
  return result;
}

Tensor pairwise_relation_key_gradient(const Tensor& grad_output, const Tensor& query, int64_t height, int64_t width,
                                      const Pair& kernel_size, const std::string& relation_name, const Pair& stride,
                                      const Pair& dilation, const std::string& padding_mode) {
  const Relation relation = parse_relation(relation_name);
  const auto footprint =
      make_footprint(height, width, kernel_size, stride, dilation, padding_mode, /*clamp_allowed=*/true);
  const Aggregation problem = check_relation_gradient(grad_output, "query", query, relation, footprint);
  Tensor gradient = grad_output, factor = query;
  if (is_product(relation)) {
    factor = centres_of(query, problem);
  } else {
    factor = torch::stable::new_empty(query, output_shape(problem));
    torch::stable::fill_(factor, relation == Relation::kSubtraction ? -1 : 1);
  }
  if (relation == Relation::kConcatenation) {
    gradient = torch::stable::narrow(gradient, 1, problem.channels, problem.channels);
  }
  return aggregation_value_gradient(factor, gradient, height, width, kernel_size, stride, dilation, padding_mode,
                                    kNoGroups);
}

}  // namespace

}  // namespace sa_layers::cuda

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CUDA, library) {
  library.impl("aggregation", TORCH_BOX(&sa_layers::cuda::aggregation));
  library.impl("aggregation_value_gradient", TORCH_BOX(&sa_layers::cuda::aggregation_value_gradient));
  library.impl("aggregation_weight_gradient", TORCH_BOX(&sa_layers::cuda::aggregation_weight_gradient));
  library.impl("softmax_aggregation", TORCH_BOX(&sa_layers::cuda::softmax_aggregation));
  library.impl("softmax_aggregation_value_gradient", TORCH_BOX(&sa_layers::cuda::softmax_aggregation_value_gradient));
  library.impl("softmax_aggregation_logits_gradient", TORCH_BOX(&sa_layers::cuda::softmax_aggregation_logits_gradient));
  library.impl("pairwise_relation", TORCH_BOX(&sa_layers::cuda::pairwise_relation));
  library.impl("pairwise_relation_query_gradient", TORCH_BOX(&sa_layers::cuda::pairwise_relation_query_gradient));
  library.impl("pairwise_relation_key_gradient", TORCH_BOX(&sa_layers::cuda::pairwise_relation_key_gradient));
}
