// Binding of pairwise_attention: checks, and maps whose channels lie side by side.

#include "cuda/pairwise_attention.h"

#include <optional>

#include "cuda/binding.h"

namespace sa_layers::cuda {
namespace {

int64_t relation_width(Relation relation, int64_t channels) {
  if (relation == Relation::kDot) return 1;
  return relation == Relation::kConcatenation ? 2 * channels : channels;
}

// The map itself where its channels lie side by side, or a copy in which they do.
Tensor channels_last(const Tensor& map) {
  if (map.stride(1) == 1 || map.size(1) == 1) return map;
  const Tensor rearranged = torch::stable::transpose(torch::stable::transpose(map, 1, 2), 2, 3);
  return torch::stable::transpose(torch::stable::transpose(torch::stable::contiguous(rearranged), 2, 3), 1, 2);
}

MapSteps steps_of(const Tensor& map) { return {map.stride(0), map.stride(2), map.stride(3)}; }

// What shared memory and registers have no room for is refused.
int checked_width(const char* what, int64_t width, int64_t most) {
  STD_TORCH_CHECK(width <= most, "pairwise_attention has no CUDA kernel for ", what, " of ", width,
                  " channels, which must be at most ", most);
  return int(width);
}

Tensor pairwise_attention(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& scale,
                          const Tensor& shift, const std::vector<Tensor>& weights, const std::vector<Tensor>& biases,
                          const std::optional<Tensor>& query_position, const std::optional<Tensor>& key_position,
                          const Pair& position_size, const std::optional<Tensor>& output_scale,
                          const std::optional<Tensor>& output_shift, const std::string& relation_name,
                          const Pair& kernel_size, const Pair& stride, const Pair& dilation,
                          const std::string& padding_mode) {
  check_dims("query", query, 4);
  check_shape("key", key, shape_of(query));
  check_like("key", key, "query", query);
  check_dims("value", value, 4);
  check_shape("value", value, {query.size(0), value.size(1), query.size(2), query.size(3)});
  check_like("value", value, "query", query);
  STD_TORCH_CHECK(query.size(1) > 0 && value.size(1) > 0, "query and value must have at least one channel");
  STD_TORCH_CHECK(!weights.empty() && weights.size() <= kMappingLayers && weights.size() == biases.size(),
                  "weights and biases must be lists of one to ", kMappingLayers, " tensors, got ", weights.size(),
                  " and ", biases.size());
  STD_TORCH_CHECK(query_position.has_value() == key_position.has_value(),
                  "query_position and key_position must be given together");
  STD_TORCH_CHECK(output_scale.has_value() == output_shift.has_value(),
                  "output_scale and output_shift must be given together");

  PairwiseAttention problem = {};
  problem.footprint = make_footprint(query.size(2), query.size(3), kernel_size, stride, dilation, padding_mode);
  STD_TORCH_CHECK(query.size(1) <= INT32_MAX && query.size(2) <= INT32_MAX && query.size(3) <= INT32_MAX &&
                      problem.footprint.taps() <= INT32_MAX,
                  "pairwise_attention has no CUDA kernel for sizes that take 64 bits to count");
  problem.relation = parse_relation(relation_name);
  problem.batch = query.size(0);
  problem.channels = int(query.size(1));
  problem.value_channels = checked_width("a value", value.size(1), kMostValueChannels);
  if (query_position) {
    check_dims("query_position", *query_position, 2);
    const int64_t positions = query_position->size(0);
    STD_TORCH_CHECK(positions <= kPositionWidth, "query_position must have at most ", kPositionWidth, " rows, got ",
                    positions);
    check_coefficients("query_position", *query_position, query, {positions, 3});
    check_coefficients("key_position", *key_position, query, {positions, 3});
    STD_TORCH_CHECK(
        position_size.empty() || (position_size.size() == 2 && position_size[0] > 1 && position_size[1] > 1),
        "position_size must be empty or two numbers above 1, got ", shape_text(position_size));
    problem.positions = int(positions);
    if (!position_size.empty()) {
      problem.position_height = position_size[0], problem.position_width = position_size[1];
    }
  }
  problem.layers = int(weights.size());
  problem.widths[0] =
      checked_width("pairs", relation_width(problem.relation, problem.channels) + problem.positions, kWidestLayer);
  check_coefficients("scale", scale, query, {problem.widths[0]});
  check_coefficients("shift", shift, query, {problem.widths[0]});
  for (int layer = 0; layer < problem.layers; ++layer) {
    check_dims("weights", weights[layer], 2);
    STD_TORCH_CHECK(weights[layer].size(0) > 0, "weights must have at least one output, got 0");
    problem.widths[layer + 1] = checked_width("a mapping", weights[layer].size(0), kWidestLayer);
    check_coefficients("weights", weights[layer], query, {problem.widths[layer + 1], problem.widths[layer]});
    check_coefficients("biases", biases[layer], query, {problem.widths[layer + 1]});
    problem.weight_steps[layer] = {weights[layer].stride(0), weights[layer].stride(1)};
  }
  STD_TORCH_CHECK(problem.value_channels % problem.weight_channels() == 0, "value must have a multiple of the ",
                  problem.weight_channels(), " channels of the weights, got ", problem.value_channels);
  if (output_scale) {
    check_coefficients("output_scale", *output_scale, query, {problem.value_channels});
    check_coefficients("output_shift", *output_shift, query, {problem.value_channels});
  }

  const DeviceOf device(query);
  const Tensor queries = channels_last(query), keys = channels_last(key), values = channels_last(value);
  problem.query_steps = steps_of(queries), problem.key_steps = steps_of(keys), problem.value_steps = steps_of(values);
  const Footprint& footprint = problem.footprint;
  const Tensor output = torch::stable::new_empty(
      query, {problem.batch, footprint.rows.output_size(), footprint.columns.output_size(), problem.value_channels});

  std::vector<Tensor> vectors;  // alive until the launch
  const auto contiguous = [&](const std::optional<Tensor>& tensor) -> const void* {
    if (!tensor) return nullptr;
    vectors.push_back(torch::stable::contiguous(*tensor));
    return vectors.back().const_data_ptr();
  };
  PairwiseAttentionTensors tensors = {};
  tensors.query = queries.const_data_ptr(), tensors.key = keys.const_data_ptr();
  tensors.value = values.const_data_ptr(), tensors.output = output.mutable_data_ptr();
  tensors.scale = contiguous(scale), tensors.shift = contiguous(shift);
  for (int layer = 0; layer < problem.layers; ++layer) {
    tensors.weights[layer] = weights[layer].const_data_ptr(), tensors.biases[layer] = contiguous(biases[layer]);
  }
  tensors.query_position = contiguous(query_position), tensors.key_position = contiguous(key_position);
  tensors.output_scale = contiguous(output_scale), tensors.output_shift = contiguous(output_shift);
  STD_CUDA_CHECK(launch_pairwise_attention(problem, element_of("query", query), tensors, device.stream()));
  return torch::stable::transpose(torch::stable::transpose(output, 2, 3), 1, 2);
}

}  // namespace
}  // namespace sa_layers::cuda

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CUDA, library) {
  library.impl("pairwise_attention", TORCH_BOX(&sa_layers::cuda::pairwise_attention));
}
