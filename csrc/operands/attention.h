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

// The mapping's parameters: for each layer a scale and a shift (in), a weight (out, in) and a bias (out).
struct MappingTensors {
  const std::vector<Tensor>&scales, &shifts, &weights, &biases;

  int64_t layers() const { return static_cast<int64_t>(weights.size()); }
};

// A weight or a bias: in the dtype of the maps or in that of accumulation. A weight (out, in) may be that of a 1x1
// convolution, (out, in, 1, 1).
inline void check_layer_parameter(const char* name, const Tensor& tensor, const Tensor& map,
                                  const std::vector<int64_t>& shape) {
  std::vector<int64_t> given = shape_of(tensor);
  while (given.size() > shape.size() && given.back() == 1) given.pop_back();
  STD_TORCH_CHECK(given == shape, name, " must have the shape ", shape_text(shape), ", got ",
                  shape_text(shape_of(tensor)));
  STD_TORCH_CHECK(tensor.scalar_type() == map.scalar_type() || tensor.scalar_type() == compute_dtype(map), name,
                  " must have the dtype ", torch::headeronly::toString(compute_dtype(map)), ", got ",
                  torch::headeronly::toString(tensor.scalar_type()));
  STD_TORCH_CHECK(tensor.device() == map.device(), name, " must be on the device of its map");
}

// The widths of a mapping of `features` inputs: these, then the outputs of each layer.
inline std::vector<int64_t> check_mapping(const MappingTensors& mapping, int64_t features, const Tensor& query,
                                          int64_t max_layers) {
  const size_t layers = mapping.weights.size();
  STD_TORCH_CHECK(layers > 0 && mapping.layers() <= max_layers && mapping.scales.size() == layers &&
                      mapping.shifts.size() == layers && mapping.biases.size() == layers,
                  "scales, shifts, weights and biases must be lists of one to ", max_layers, " tensors, got ",
                  mapping.scales.size(), ", ", mapping.shifts.size(), ", ", layers, " and ", mapping.biases.size());
  std::vector<int64_t> widths = {features};
  for (size_t layer = 0; layer < layers; ++layer) {
    const Tensor& weight = mapping.weights[layer];
    check_coefficients("scales", mapping.scales[layer], query, {widths.back()});
    check_coefficients("shifts", mapping.shifts[layer], query, {widths.back()});
    STD_TORCH_CHECK(weight.dim() >= 2, "weights must have 2 dimensions, got the shape ", shape_text(shape_of(weight)));
    const int64_t outputs = weight.size(0);
    STD_TORCH_CHECK(outputs > 0, "weights must have at least one output, got 0");
    check_layer_parameter("weights", weight, query, {outputs, widths.back()});
    check_layer_parameter("biases", mapping.biases[layer], query, {outputs});
    widths.push_back(outputs);
  }
  return widths;
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
inline std::vector<int64_t> check_pairwise_mapping(const MappingTensors& mapping, Relation relation, int64_t positions,
                                                   const Tensor& query, const Tensor& value, int64_t max_layers) {
  const int64_t channels = query.size(1);
  const int64_t of_relation = relation == Relation::kDot             ? 1
                              : relation == Relation::kConcatenation ? 2 * channels
                                                                     : channels;
  const auto widths = check_mapping(mapping, of_relation + positions, query, max_layers);
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

// The features of a footprint, which the mapping reads.
inline int64_t patchwise_features(PatchwiseRelation relation, int64_t channels, int64_t taps) {
  if (relation == PatchwiseRelation::kConcatenation) return channels * (1 + taps);
  return relation == PatchwiseRelation::kStar ? taps : taps * taps;
}

// The number of weights of each tap, for maps that have been checked.
inline int64_t check_patchwise_mapping(const MappingTensors& mapping, PatchwiseRelation relation, int64_t taps,
                                       const Tensor& query, const Tensor& value) {
  STD_TORCH_CHECK(mapping.layers() == 2, "weights must be a list of two tensors, got ", mapping.layers());
  const auto widths = check_mapping(mapping, patchwise_features(relation, query.size(1), taps), query, 2);
  STD_TORCH_CHECK(value.size(1) % widths[1] == 0,
                  "weights must have a number of hidden channels that divides the channels of value, ", value.size(1),
                  ", got ", widths[1]);
  STD_TORCH_CHECK(widths[2] == widths[1] * taps, "weights must have ", taps, " times the ", widths[1],
                  " hidden channels as outputs, got ", widths[2]);
  return widths[1];
}

}  // namespace sa_layers
