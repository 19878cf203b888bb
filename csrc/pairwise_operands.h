// The operands of pairwise_attention, as the bindings of every device check and arrange them.
#pragma once

#include <optional>

#include "attention_operands.h"

namespace sa_layers {

// The number of position features, none without positions.
inline int64_t check_positions(const std::optional<Tensor>& query_position, const std::optional<Tensor>& key_position,
                               const Pair& size, const Tensor& query, int64_t most) {
  STD_TORCH_CHECK(query_position.has_value() == key_position.has_value(),
                  "query_position and key_position must be given together");
  if (!query_position) return 0;
  check_dims("query_position", *query_position, 2);
  const int64_t positions = query_position->size(0);
  STD_TORCH_CHECK(positions <= most, "query_position must have at most ", most, " rows, got ", positions);
  check_coefficients("query_position", *query_position, query, {positions, 3});
  check_coefficients("key_position", *key_position, query, {positions, 3});
  STD_TORCH_CHECK(size.empty() || (size.size() == 2 && size[0] > 1 && size[1] > 1),
                  "position_size must be empty or two numbers above 1, got ", shape_text(size));
  return positions;
}

// The widths of the mapping: features of a pair, `positions` of them of its position, then each layer's outputs.
inline std::vector<int64_t> check_mapping(const Tensor& scale, const Tensor& shift, const std::vector<Tensor>& weights,
                                          const std::vector<Tensor>& biases, Relation relation, int64_t positions,
                                          const Tensor& query, const Tensor& value, size_t most_layers) {
  STD_TORCH_CHECK(!weights.empty() && weights.size() <= most_layers && weights.size() == biases.size(),
                  "weights and biases must be lists of one to ", most_layers, " tensors, got ", weights.size(), " and ",
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

}  // namespace sa_layers
