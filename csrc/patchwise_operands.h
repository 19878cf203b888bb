// The operands of patchwise_attention, as the bindings of every device check and arrange them.
#pragma once

#include "attention_operands.h"

namespace sa_layers {

// How far apart the pixels of a map lie, if it is channels last, be it a slice of the channels of another map; or -1.
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
