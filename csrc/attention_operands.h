// The operands that whole attentions have in common, pairwise or patchwise: their maps and what follows the sums.
#pragma once

#include <optional>

#include "operands.h"

namespace sa_layers {

// The map itself where its channels lie side by side, or a copy in which they do.
inline Tensor channels_side_by_side(const Tensor& map) {
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

inline void check_epilogue(const std::optional<Tensor>& scale, const std::optional<Tensor>& shift, const Tensor& query,
                           const Tensor& value) {
  STD_TORCH_CHECK(scale.has_value() == shift.has_value(), "output_scale and output_shift must be given together");
  if (!scale) return;
  check_coefficients("output_scale", *scale, query, {value.size(1)});
  check_coefficients("output_shift", *shift, query, {value.size(1)});
}

}  // namespace sa_layers
