// Operands of the whole attentions, pairwise and patchwise, as the bindings of all devices check and arrange them.
#pragma once

#include "operands/aggregation.h"

namespace sa_layers {

// The map itself if its channels are contiguous, otherwise a channels-last copy.
inline Tensor with_contiguous_channels(const Tensor& map) {
  if (map.stride(1) == 1 || map.size(1) == 1) return map;
  const Tensor rearranged = torch::stable::transpose(torch::stable::transpose(map, 1, 2), 2, 3);
  return torch::stable::transpose(torch::stable::transpose(torch::stable::contiguous(rearranged), 2, 3), 1, 2);
}

inline void check_maps(const Tensor& query, const Tensor& key, const Tensor& value) {
  check_dims("query", query, 4);
  check_shape("key", key, shape_of(query));
  check_like("key", key, "query", query);
  check_dims("value", value, 4);
  check_shape("value", value, {query.size(0), value.size(1), query.size(2), query.size(3)});
  check_like("value", value, "query", query);
  STD_TORCH_CHECK(query.size(1) > 0 && value.size(1) > 0, "query and value must have at least one channel");
}

inline void check_epilogue(const OptionalTensor& scale, const OptionalTensor& shift, const Tensor& query,
                           const Tensor& value) {
  STD_TORCH_CHECK(scale.has_value() == shift.has_value(), "output_scale and output_shift must be given together");
  if (!scale) return;
  check_coefficients("output_scale", *scale, query, {value.size(1)});
  check_coefficients("output_shift", *shift, query, {value.size(1)});
}

// Pairwise attention.

// The number of position features; zero without positions.
inline int64_t check_positions(const OptionalTensor& query_position, const OptionalTensor& key_position,
                               const Pair& size, const Tensor& query, int64_t max_positions) {
  STD_TORCH_CHECK(query_position.has_value() == key_position.has_value(),
                  "query_position and key_position must be given together");
  if (!query_position) return 0;
  check_dims("query_position", *query_position, 2);
  const int64_t positions = query_position->size(0);
  STD_TORCH_CHECK(positions <= max_positions, "query_position must have at most ", max_positions, " rows, got ",
                  positions);
  check_coefficients("query_position", *query_position, query, {positions, 3});
  check_coefficients("key_position", *key_position, query, {positions, 3});
  STD_TORCH_CHECK(size.empty() || (size.size() == 2 && size[0] > 1 && size[1] > 1),
                  "position_size must be empty or two numbers above 1, got ", shape_text(size));
  return positions;
}

// The widths of the mapping: the features of a pair, of which the last `positions` encode its position, then the
// outputs of each layer.
inline std::vector<int64_t> check_mapping(const Tensor& scale, const Tensor& shift, const std::vector<Tensor>& weights,
                                          const std::vector<Tensor>& biases, Relation relation, int64_t positions,
                                          const Tensor& query, const Tensor& value, size_t max_layers) {
  STD_TORCH_CHECK(!weights.empty() && weights.size() <= max_layers && weights.size() == biases.size(),
                  "weights and biases must be lists of one to ", max_layers, " tensors, got ", weights.size(), " and ",
                  biases.size());
  const int64_t channels = query.size(1);
  const int64_t of_relation = relation == Relation::kDot             ? 1
                              : relation == Relation::kConcatenation ? 2 * channels
                                                                     : channels;
  std::vector<int64_t> widths = {of_relation + positions};
  check_coefficients("scale", scale, query, {widths[0]});
  check_coefficients("shift", shift, query, {widths[0]});
  for (size_t layer = 0; layer < weights.size(); ++layer) {
    check_dims("weights", weights[layer], 2);
    const int64_t outputs = weights[layer].size(0);
    STD_TORCH_CHECK(outputs > 0, "weights must have at least one output, got 0");
    check_coefficients("weights", weights[layer], query, {outputs, widths.back()});
    check_coefficients("biases", biases[layer], query, {outputs});
    widths.push_back(outputs);
  }
  STD_TORCH_CHECK(value.size(1) % widths.back() == 0, "value must have a multiple of the ", widths.back(),
                  " channels of the weights, got ", value.size(1));
  return widths;
}

// Patchwise attention.

// The stride between pixels of a channels-last map, which may be a slice of another map's channels; -1 for other
// layouts.
inline int64_t pixel_step_of(const Tensor& map) {
  const int64_t channels = map.size(1), height = map.size(2), width = map.size(3);
  if (channels > 1 && map.stride(1) != 1) return -1;
  const int64_t step = width > 1         ? map.stride(3)
                       : height > 1      ? map.stride(2)
                       : map.size(0) > 1 ? map.stride(0)
                                         : channels;
  const bool rows_follow = height == 1 || map.stride(2) == width * step;
  const bool images_follow = map.size(0) <= 1 || map.stride(0) == height * width * step;
  return rows_follow && images_follow ? step : -1;
}

inline Tensor channels_last(const Tensor& map) {
  using torch::headeronly::MemoryFormat;
  return pixel_step_of(map) >= 0 ? map : torch::stable::contiguous(map, MemoryFormat::ChannelsLast);
}

inline PatchwiseRelation parse_patchwise_relation(const std::string& name) {
  if (name == "concatenation") return PatchwiseRelation::kConcatenation;
  if (name == "star") return PatchwiseRelation::kStar;
  STD_TORCH_CHECK(name == "clique", "relation must be 'concatenation', 'star' or 'clique', got '", name, "'");
  return PatchwiseRelation::kClique;
}

// The mapping's parameters, for maps that have been checked.
inline void check_patchwise_mapping(const Tensor& scale, const Tensor& shift, const Tensor& hidden_weight,
                                    const Tensor& hidden_bias, const Tensor& weight, const Tensor& bias,
                                    PatchwiseRelation relation, int64_t taps, const Tensor& query,
                                    const Tensor& value) {
  check_dims("hidden_bias", hidden_bias, 1);
  const int64_t weights = hidden_bias.size(0);
  STD_TORCH_CHECK(weights > 0 && value.size(1) % weights == 0,
                  "hidden_bias must have a size that divides the channels of value, ", value.size(1), ", got ",
                  weights);
  std::vector<int64_t> affine{taps + 1, query.size(1)};
  if (relation == PatchwiseRelation::kStar) affine = {taps, 1};
  if (relation == PatchwiseRelation::kClique) affine = {taps * taps, 1};
  check_coefficients("scale", scale, query, affine);
  check_coefficients("shift", shift, query, affine);
  check_coefficients("hidden_weight", hidden_weight, query, {affine[0], affine[1], weights});
  check_coefficients("hidden_bias", hidden_bias, query, {weights});
  check_coefficients("weight", weight, query, {weights, taps, weights});
  check_coefficients("bias", bias, query, {taps, weights});
}

}  // namespace sa_layers
