// Bindings of aggregation, softmax_aggregation, pairwise_relation and their gradients.

#include <cstring>
#include <tuple>

#include "cpu/aggregation/problem.h"
#include "cpu/runtime/tensors.h"
#include "cpu/simd/dispatch.h"
#include "operands/aggregation.h"

#define SA_LAYERS_TARGET_INCLUDE "cpu/aggregation/binding.cpp"
#include "cpu/simd/foreach_target.h"

// Compiled once for each instruction set.
#include "cpu/aggregation/aggregation.h"
#include "cpu/aggregation/pairwise_relation.h"
#include "cpu/aggregation/softmax_aggregation.h"

#if SA_LAYERS_ONCE

namespace sa_layers::cpu {
namespace {

// For relations, in which the channels share no weights or all of them.
const char* const kNoGroups = "interleaved";

// The weights if the pixels of every tap are contiguous, else a contiguous copy.
Tensor with_contiguous_pixels(const Tensor& weight) {
  return weight.size(3) <= 1 || weight.stride(3) == 1 ? weight : torch::stable::contiguous(weight);
}

WeightStrides strides_of(const Tensor& weight) { return {weight.stride(0), weight.stride(1), weight.stride(2)}; }

// For the gradient of logits: in their layout if this is contiguous, or would be with taps before weight channels, as
// in the mask of an upsampling. Otherwise contiguous.
Tensor empty_in_layout(const Tensor& logits) {
  if (!logits.is_contiguous()) {
    const Tensor taps_first = torch::stable::transpose(logits, 1, 2);
    if (taps_first.is_contiguous()) {
      return torch::stable::transpose(torch::stable::new_empty(logits, shape_of(taps_first)), 1, 2);
    }
  }
  return torch::stable::new_empty(logits, shape_of(logits));
}

// Calls kernel(first task, task after the last) for all tasks, in torch's threads.
template <typename Kernel>
void run(const AggregationTasks& tasks, const Kernel& kernel) {
  torch::stable::parallel_for(0, tasks.count(), tasks.grain(), kernel);
}

Tensor aggregation(const Tensor& value, const Tensor& weight, const Pair& kernel_size, const Pair& stride,
                   const Pair& dilation, const std::string& padding_mode, const std::string& groups) {
  check_dims("value", value, 4);
  const auto footprint =
      make_footprint(value.size(2), value.size(3), kernel_size, stride, dilation, padding_mode, /*clamp_allowed=*/true);
  const Aggregation problem = check_aggregation("value", value, "weight", weight, footprint, groups);
  const Tensor values = torch::stable::contiguous(value), weights = with_contiguous_pixels(weight);
  const Tensor output = torch::stable::new_empty(value, output_shape(problem));
  dispatch_dtype("value", value, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const AggregationTasks tasks(problem, /*whole_maps=*/false);
    run(tasks, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, aggregation, tasks, data<T>(values), data<T>(weights), strides_of(weights),
                         mutable_data<T>(output), begin, end);
    });
  });
  return output;
}

Tensor aggregation_value_gradient(const Tensor& grad_output, const Tensor& weight, int64_t height, int64_t width,
                                  const Pair& kernel_size, const Pair& stride, const Pair& dilation,
                                  const std::string& padding_mode, const std::string& groups) {
  const auto footprint =
      make_footprint(height, width, kernel_size, stride, dilation, padding_mode, /*clamp_allowed=*/true);
  const Aggregation problem = check_aggregation("grad_output", grad_output, "weight", weight, footprint, groups);
  check_shape("grad_output", grad_output, output_shape(problem));
  const Tensor gradients = torch::stable::contiguous(grad_output), weights = with_contiguous_pixels(weight);
  const Tensor result = torch::stable::new_empty(grad_output, value_shape(problem));
  dispatch_dtype("grad_output", grad_output, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const AggregationTasks tasks(problem, /*whole_maps=*/true);
    run(tasks, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, aggregation_value_gradient, tasks, data<T>(gradients), data<T>(weights),
                         strides_of(weights), mutable_data<T>(result), begin, end);
    });
  });
  return result;
}

Tensor aggregation_weight_gradient(const Tensor& grad_output, const Tensor& value, int64_t weight_channels,
                                   const Pair& kernel_size, const Pair& stride, const Pair& dilation,
                                   const std::string& padding_mode, const std::string& groups) {
  check_dims("value", value, 4);
  const auto footprint =
      make_footprint(value.size(2), value.size(3), kernel_size, stride, dilation, padding_mode, /*clamp_allowed=*/true);
  const Aggregation problem = check_weight_gradient(grad_output, value, weight_channels, footprint, groups);
  const Tensor gradients = torch::stable::contiguous(grad_output), values = torch::stable::contiguous(value);
  const Tensor result = torch::stable::new_empty(value, weight_shape(problem));
  dispatch_dtype("value", value, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const AggregationTasks tasks(problem, /*whole_maps=*/false);
    run(tasks, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, aggregation_weight_gradient, tasks, data<T>(gradients), data<T>(values),
                         mutable_data<T>(result), begin, end);
    });
  });
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
  const Tensor values = torch::stable::contiguous(value), weights = with_contiguous_pixels(logits);
  const Tensor output = torch::stable::new_empty(value, output_shape(problem));
  const Tensor max_logits = torch::stable::new_empty(value, softmax_shape(problem), compute_dtype(value));
  const Tensor normalizers = torch::stable::new_empty(value, softmax_shape(problem), compute_dtype(value));
  dispatch_dtype("value", value, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const AggregationTasks tasks(problem, /*whole_maps=*/false);
    run(tasks, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, softmax_aggregation, tasks, data<T>(values), data<T>(weights), strides_of(weights),
                         mutable_data<T>(output), mutable_data<Compute<T>>(max_logits),
                         mutable_data<Compute<T>>(normalizers), begin, end);
    });
  });
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
  const Tensor gradients = torch::stable::contiguous(grad_output), weights = with_contiguous_pixels(logits);
  const Tensor maxima = torch::stable::contiguous(max_logits), divisors = torch::stable::contiguous(normalizers);
  const Tensor result = torch::stable::new_empty(grad_output, value_shape(problem));
  dispatch_dtype("grad_output", grad_output, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const AggregationTasks tasks(problem, /*whole_maps=*/true);
    run(tasks, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, softmax_aggregation_value_gradient, tasks, data<T>(gradients), data<T>(weights),
                         strides_of(weights), data<Compute<T>>(maxima), data<Compute<T>>(divisors),
                         mutable_data<T>(result), begin, end);
    });
  });
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
  const Tensor gradients = torch::stable::contiguous(grad_output), values = torch::stable::contiguous(value);
  const Tensor weights = with_contiguous_pixels(logits);
  const Tensor maxima = torch::stable::contiguous(max_logits), divisors = torch::stable::contiguous(normalizers);
  const Tensor result = empty_in_layout(logits);
  dispatch_dtype("value", value, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const AggregationTasks tasks(problem, /*whole_maps=*/false);
    run(tasks, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, softmax_aggregation_logits_gradient, tasks, data<T>(gradients), data<T>(values),
                         data<T>(weights), strides_of(weights), data<Compute<T>>(maxima), data<Compute<T>>(divisors),
                         mutable_data<T>(result), strides_of(result), begin, end);
    });
  });
  return result;
}

// Copies the pixels (row * stride, column * stride) from `sparse` to `dense` or back, for any element type.
void copy_centres(const Tensor& from, const Tensor& to, bool gather, int64_t height, int64_t width,
                  const Pair& stride) {
  const int64_t output_height = ceil_div(height, stride[0]), output_width = ceil_div(width, stride[1]);
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

// The queries of the output pixels, (N, C, Ho, Wo).
Tensor centres_of(const Tensor& query, const Pair& stride) {
  const Tensor contiguous = torch::stable::contiguous(query);
  if (stride[0] == 1 && stride[1] == 1) return contiguous;
  const int64_t height = query.size(2), width = query.size(3);
  const Tensor centres = torch::stable::new_empty(
      query, {query.size(0), query.size(1), ceil_div(height, stride[0]), ceil_div(width, stride[1])});
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
  const auto footprint =
      make_footprint(query.size(2), query.size(3), kernel_size, stride, dilation, padding_mode, /*clamp_allowed=*/true);
  const Aggregation problem = check_relation(query, key, footprint);
  const Tensor centres = centres_of(query, stride);
  if (is_product(relation)) {
    const int64_t channels = relation == Relation::kDot ? 1 : problem.channels;
    return aggregation_weight_gradient(centres, key, channels, kernel_size, stride, dilation, padding_mode, kNoGroups);
  }
  const Tensor keys = torch::stable::contiguous(key);
  const Tensor result = torch::stable::new_empty(query, relation_shape(problem, relation));
  dispatch_dtype("query", query, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const AggregationTasks tasks(problem, /*whole_maps=*/false);
    const Compute<T> key_sign = relation == Relation::kSubtraction ? -1 : 1;
    run(tasks, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, pairwise_relation, tasks, relation == Relation::kConcatenation, key_sign, data<T>(centres),
                         data<T>(keys), mutable_data<T>(result), begin, end);
    });
  });
  return result;
}

Tensor pairwise_relation_query_gradient(const Tensor& grad_output, const Tensor& key, int64_t height, int64_t width,
                                        const Pair& kernel_size, const std::string& relation_name, const Pair& stride,
                                        const Pair& dilation, const std::string& padding_mode) {
  const Relation relation = parse_relation(relation_name);
  const auto footprint =
      make_footprint(height, width, kernel_size, stride, dilation, padding_mode, /*clamp_allowed=*/true);
  const Aggregation problem = check_relation_gradient(grad_output, "key", key, relation, footprint);
  Tensor centres = grad_output;
  if (is_product(relation)) {
    centres = aggregation(key, grad_output, kernel_size, stride, dilation, padding_mode, kNoGroups);
  } else {
    // The sum over the taps is an aggregation of ones. Padding by reflection, since padded zeros would not count.
    const Tensor ones = filled(key, value_shape(problem), 1);
    Tensor gradient = grad_output;
    if (relation == Relation::kConcatenation) gradient = torch::stable::narrow(gradient, 1, 0, problem.channels);
    centres = aggregation(ones, gradient, kernel_size, stride, dilation, "reflect", kNoGroups);
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
  const auto footprint =
      make_footprint(height, width, kernel_size, stride, dilation, padding_mode, /*clamp_allowed=*/true);
  const Aggregation problem = check_relation_gradient(grad_output, "query", query, relation, footprint);
  Tensor gradient = grad_output;
  if (relation == Relation::kConcatenation) {
    gradient = torch::stable::narrow(gradient, 1, problem.channels, problem.channels);
  }
  const double sign = relation == Relation::kSubtraction ? -1 : 1;
  const Tensor factor = is_product(relation) ? centres_of(query, stride) : filled(query, output_shape(problem), sign);
  return aggregation_value_gradient(factor, gradient, height, width, kernel_size, stride, dilation, padding_mode,
                                    kNoGroups);
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("aggregation", TORCH_BOX(&sa_layers::cpu::aggregation));
  library.impl("aggregation_value_gradient", TORCH_BOX(&sa_layers::cpu::aggregation_value_gradient));
  library.impl("aggregation_weight_gradient", TORCH_BOX(&sa_layers::cpu::aggregation_weight_gradient));
  library.impl("softmax_aggregation", TORCH_BOX(&sa_layers::cpu::softmax_aggregation));
  library.impl("softmax_aggregation_value_gradient", TORCH_BOX(&sa_layers::cpu::softmax_aggregation_value_gradient));
  library.impl("softmax_aggregation_logits_gradient", TORCH_BOX(&sa_layers::cpu::softmax_aggregation_logits_gradient));
  library.impl("pairwise_relation", TORCH_BOX(&sa_layers::cpu::pairwise_relation));
  library.impl("pairwise_relation_query_gradient", TORCH_BOX(&sa_layers::cpu::pairwise_relation_query_gradient));
  library.impl("pairwise_relation_key_gradient", TORCH_BOX(&sa_layers::cpu::pairwise_relation_key_gradient));
}

#endif  // SA_LAYERS_ONCE
