// Bindings of pairwise_relation and its gradients. With the centres (the queries of the output pixels) in the place of
// an output's gradient, the products are those of aggregation: centre * key is a weight's gradient, with as many weight
// channels as there are channels ('hadamard') or with one, which sums over the channels ('dot'). The gradients of all
// relations are then aggregation's own operators, with ones where the relation has no factor.

#include <cstring>

#include "cpu/aggregation_operators.h"
#include "cpu/binding.h"

#define SA_LAYERS_KERNELS "cpu/pairwise_relation_kernels.inc"
#include "cpu/for_each_capability.inc"

namespace sa_layers::cpu {
namespace {

// Copies the pixels (row * stride, column * stride) of `sparse` to `dense` or back, whatever the element type.
void copy_centres(const Tensor& from, const Tensor& to, bool gather, int64_t height, int64_t width,
                  const Pair& stride) {
  const int64_t output_height = divide_up(height, stride[0]), output_width = divide_up(width, stride[1]);
  const int64_t maps = from.size(0) * from.size(1), bytes = static_cast<int64_t>(from.element_size());
  const char* source = data<char>(from);
  char* target = mutable_data<char>(to);
  for (int64_t row = 0; row < maps * output_height; ++row) {
    const int64_t sparse_row = row / output_height * height + row % output_height * stride[0];
    for (int64_t column = 0; column < output_width; ++column) {
      const int64_t sparse = (sparse_row * width + column * stride[1]) * bytes;
      const int64_t dense = (row * output_width + column) * bytes;
      std::memcpy(target + (gather ? dense : sparse), source + (gather ? sparse : dense), bytes);
    }
  }
}

// Queries of the output pixels, (N, C, Ho, Wo).
Tensor centres_of(const Tensor& query, const Pair& stride) {
  const Tensor contiguous = torch::stable::contiguous(query);
  if (stride[0] == 1 && stride[1] == 1) return contiguous;
  const int64_t height = query.size(2), width = query.size(3);
  const Tensor centres = torch::stable::new_empty(
      query, {query.size(0), query.size(1), divide_up(height, stride[0]), divide_up(width, stride[1])});
  copy_centres(contiguous, centres, /*gather=*/true, height, width, stride);
  return centres;
}

Tensor filled(const Tensor& like, const std::vector<int64_t>& shape, double number) {
  Tensor tensor = torch::stable::new_empty(like, shape);
  return torch::stable::fill_(tensor, number);
}

Tensor pairwise_relation(const Tensor& query, const Tensor& key, const Pair& kernel_size,
                         const std::string& relation_name, const Pair& stride, const Pair& dilation,
                         const std::string& padding_mode) {
  const Relation relation = parse_relation(relation_name);
  check_dims("query", query, 4);
  const auto footprint = make_footprint(query.size(2), query.size(3), kernel_size, stride, dilation, padding_mode);
  const Aggregation problem = check_relation(query, key, footprint);
  const Tensor centres = centres_of(query, stride);
  if (is_product(relation)) {
    const int64_t channels = relation == Relation::kDot ? 1 : problem.channels;
    return aggregation_weight_gradient(centres, key, channels, kernel_size, stride, dilation, padding_mode);
  }
  const Tensor keys = torch::stable::contiguous(key);
  const Tensor result = torch::stable::new_empty(query, relation_shape(problem, relation));
  dispatch("query", query, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const AggregationTasks tasks(problem, /*whole_maps=*/false);
    const Compute<T> key_sign = relation == Relation::kSubtraction ? -1 : 1;
    run(tasks, [&](int64_t begin, int64_t end) {
      SA_LAYERS_BEST(T, pairwise_relation, tasks, relation == Relation::kConcatenation, key_sign, data<T>(centres),
                     data<T>(keys), mutable_data<T>(result), begin, end);
    });
  });
  return result;
}

Tensor pairwise_relation_query_gradient(const Tensor& grad_output, const Tensor& key, int64_t height, int64_t width,
                                        const Pair& kernel_size, const std::string& relation_name, const Pair& stride,
                                        const Pair& dilation, const std::string& padding_mode) {
  const Relation relation = parse_relation(relation_name);
  const auto footprint = make_footprint(height, width, kernel_size, stride, dilation, padding_mode);
  const Aggregation problem = check_relation_gradient(grad_output, "key", key, relation, footprint);
  Tensor centres = grad_output;
  if (is_product(relation)) {
    centres = aggregation(key, grad_output, kernel_size, stride, dilation, padding_mode);
  } else {
    // The sum over the taps: an aggregation of ones. Reflection keeps the border from showing zeros.
    const Tensor ones = filled(key, value_shape(problem), 1);
    Tensor gradient = grad_output;
    if (relation == Relation::kConcatenation) gradient = torch::stable::narrow(gradient, 1, 0, problem.channels);
    centres = aggregation(ones, gradient, kernel_size, stride, dilation, "reflect");
  }
  if (stride[0] == 1 && stride[1] == 1) return centres;
  const Tensor result = filled(key, value_shape(problem), 0);
  copy_centres(centres, result, /*gather=*/false, height, width, stride);
  return result;
}

Tensor pairwise_relation_key_gradient(const Tensor& grad_output, const Tensor& query, int64_t height, int64_t width,
                                      const Pair& kernel_size, const std::string& relation_name, const Pair& stride,
                                      const Pair& dilation, const std::string& padding_mode) {
  const Relation relation = parse_relation(relation_name);
  const auto footprint = make_footprint(height, width, kernel_size, stride, dilation, padding_mode);
  const Aggregation problem = check_relation_gradient(grad_output, "query", query, relation, footprint);
  Tensor gradient = grad_output;
  if (relation == Relation::kConcatenation) {
    gradient = torch::stable::narrow(gradient, 1, problem.channels, problem.channels);
  }
  const double sign = relation == Relation::kSubtraction ? -1 : 1;
  const Tensor factor = is_product(relation) ? centres_of(query, stride) : filled(query, output_shape(problem), sign);
  return aggregation_value_gradient(factor, gradient, height, width, kernel_size, stride, dilation, padding_mode);
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("pairwise_relation", TORCH_BOX(&sa_layers::cpu::pairwise_relation));
  library.impl("pairwise_relation_query_gradient", TORCH_BOX(&sa_layers::cpu::pairwise_relation_query_gradient));
  library.impl("pairwise_relation_key_gradient", TORCH_BOX(&sa_layers::cpu::pairwise_relation_key_gradient));
}
