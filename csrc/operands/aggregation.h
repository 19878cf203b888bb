// Operands of aggregation and of the relations: their shapes, and the checks that turn them into a problem. Shared by
// the bindings of all devices.
#pragma once

#include "checks.h"
#include "footprint.h"

namespace sa_layers {

inline std::vector<int64_t> value_shape(const Aggregation& problem) {
  return {problem.batch, problem.channels, problem.footprint.rows.size, problem.footprint.columns.size};
}
inline std::vector<int64_t> output_shape(const Aggregation& problem) {
  return {problem.batch, problem.channels, problem.footprint.rows.output_size(),
          problem.footprint.columns.output_size()};
}
inline std::vector<int64_t> weight_shape(const Aggregation& problem) {
  return {problem.batch, problem.weight_channels, problem.footprint.taps(), problem.footprint.output_pixels()};
}
// The maximum of the logits over the taps, and the normalizer.
inline std::vector<int64_t> softmax_shape(const Aggregation& problem) {
  return {problem.batch, problem.weight_channels, problem.footprint.output_pixels()};
}
inline std::vector<int64_t> relation_shape(const Aggregation& problem, Relation relation) {
  std::vector<int64_t> shape = weight_shape(problem);
  if (relation == Relation::kDot) shape[1] = 1;
  if (relation == Relation::kConcatenation) shape[1] *= 2;
  return shape;
}

// The dtype of accumulation.
inline ScalarType compute_dtype(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Parameters that apply to every pixel of a map: in the dtype of accumulation.
inline void check_coefficients(const char* name, const Tensor& tensor, const Tensor& map,
                               const std::vector<int64_t>& shape) {
  check_shape(name, tensor, shape);
  STD_TORCH_CHECK(tensor.scalar_type() == compute_dtype(map), name, " must have the dtype ",
                  torch::headeronly::toString(compute_dtype(map)), ", got ",
                  torch::headeronly::toString(tensor.scalar_type()));
  STD_TORCH_CHECK(tensor.device() == map.device(), name, " must be on the device of its map");
}

inline Groups parse_groups(const std::string& name) {
  STD_TORCH_CHECK(name == "interleaved" || name == "contiguous", "groups must be 'interleaved' or 'contiguous', got '",
                  name, "'");
  return name == "contiguous" ? Groups::kContiguous : Groups::kInterleaved;
}

inline Aggregation make_aggregation(const Footprint& footprint, const Tensor& map, int64_t weight_channels,
                                    const std::string& groups) {
  const Aggregation problem{footprint, map.size(0), map.size(1), weight_channels, parse_groups(groups)};
  STD_TORCH_CHECK(problem.groups == Groups::kInterleaved || problem.channels % weight_channels == 0,
                  "contiguous groups must divide the channels, ", problem.channels, ", got ", weight_channels);
  return problem;
}

// A map, (N, C, ...), and weights.
inline Aggregation check_aggregation(const char* map_name, const Tensor& map, const char* weight_name,
                                     const Tensor& weight, const Footprint& footprint, const std::string& groups) {
  check_dims(map_name, map, 4);
  check_dims(weight_name, weight, 4);
  check_like(weight_name, weight, map_name, map);
  STD_TORCH_CHECK(weight.size(1) > 0, weight_name, " must have at least one channel, got 0");
  const Aggregation problem = make_aggregation(footprint, map, weight.size(1), groups);
  check_shape(weight_name, weight, weight_shape(problem));
  return problem;
}

// The operands of a weight's gradient, whose result has `weight_channels`.
inline Aggregation check_weight_gradient(const Tensor& grad_output, const Tensor& value, int64_t weight_channels,
                                         const Footprint& footprint, const std::string& groups) {
  check_dims("value", value, 4);
  check_like("value", value, "grad_output", grad_output);
  STD_TORCH_CHECK(weight_channels > 0, "weight_channels must be positive, got ", weight_channels);
  const Aggregation problem = make_aggregation(footprint, value, weight_channels, groups);
  check_shape("grad_output", grad_output, output_shape(problem));
  return problem;
}

inline void check_softmax(const Tensor& max_logits, const Tensor& normalizers, const Tensor& logits,
                          const Aggregation& problem) {
  check_coefficients("max_logits", max_logits, logits, softmax_shape(problem));
  check_coefficients("normalizers", normalizers, logits, softmax_shape(problem));
}

inline Relation parse_relation(const std::string& name) {
  if (name == "subtraction") return Relation::kSubtraction;
  if (name == "summation") return Relation::kSummation;
  if (name == "hadamard") return Relation::kHadamard;
  if (name == "dot") return Relation::kDot;
  STD_TORCH_CHECK(name == "concatenation",
                  "relation must be 'subtraction', 'summation', 'hadamard', 'dot' or 'concatenation', got '", name,
                  "'");
  return Relation::kConcatenation;
}

// Relations are aggregations with as many weight channels as channels.
inline Aggregation check_relation(const Tensor& query, const Tensor& key, const Footprint& footprint) {
  check_shape("key", key, shape_of(query));
  check_like("key", key, "query", query);
  STD_TORCH_CHECK(query.size(1) > 0, "query must have at least one channel, got 0");
  return {footprint, query.size(0), query.size(1), query.size(1)};
}

// `map` is the query or the key, whichever the gradient is not of.
inline Aggregation check_relation_gradient(const Tensor& grad_output, const char* name, const Tensor& map,
                                           Relation relation, const Footprint& footprint) {
  check_dims("grad_output", grad_output, 4);
  check_dims(name, map, 4);
  check_like(name, map, "grad_output", grad_output);
  const Aggregation problem{footprint, map.size(0), map.size(1), map.size(1)};
  check_shape(name, map, value_shape(problem));
  check_shape("grad_output", grad_output, relation_shape(problem, relation));
  return problem;
}

}  // namespace sa_layers
