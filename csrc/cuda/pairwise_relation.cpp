// Bindings of pairwise_relation and its gradients. With the centres (the queries of the output pixels) in the place of
// an output's gradient, 'dot' is the gradient of a weight that all channels share; and every relation's gradient of the
// key is aggregation's gradient of the value, with ones where the relation has no factor.

#include "cuda/pairwise_relation.h"

#include "cuda/binding.h"
#include "cuda/operators.h"

namespace sa_layers::cuda {
namespace {

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
  const auto footprint = make_footprint(query.size(2), query.size(3), kernel_size, stride, dilation, padding_mode);
  const Aggregation problem = check_relation(query, key, footprint);
  if (relation == Relation::kDot) {
    return aggregation_weight_gradient(centres_of(query, problem), key, 1, kernel_size, stride, dilation, padding_mode);
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
  const auto footprint = make_footprint(height, width, kernel_size, stride, dilation, padding_mode);
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
  const auto footprint = make_footprint(height, width, kernel_size, stride, dilation, padding_mode);
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
  return aggregation_value_gradient(factor, gradient, height, width, kernel_size, stride, dilation, padding_mode);
}

}  // namespace
}  // namespace sa_layers::cuda

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CUDA, library) {
  library.impl("pairwise_relation", TORCH_BOX(&sa_layers::cuda::pairwise_relation));
  library.impl("pairwise_relation_query_gradient", TORCH_BOX(&sa_layers::cuda::pairwise_relation_query_gradient));
  library.impl("pairwise_relation_key_gradient", TORCH_BOX(&sa_layers::cuda::pairwise_relation_key_gradient));
}
