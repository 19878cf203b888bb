// Binding of pairwise_attention: checks, tables of pixels and positions, the mapping in the kernels' order.

#include "cpu/pairwise_attention.h"

#include <deque>
#include <algorithm>

#include "cpu/binding.h"
#include "cpu/share_tasks.h"
#include "operands/attention.h"

#define SA_LAYERS_KERNELS "cpu/pairwise_attention_kernels.inc"
#include "cpu/for_each_capability.inc"

namespace sa_layers::cpu {
namespace {

MapSteps steps_of(const Tensor& map) { return {map.stride(0), map.stride(2), map.stride(3)}; }

// Places of pixels along an axis: from -1 to 1, or the centre of a map of `size` pixels at 0 and its ends at -1 and 1.
std::vector<double> places(int64_t length, int64_t size) {
  std::vector<double> result(length, -1.0);
  for (int64_t i = 0; i < length; ++i) {
    const double from_centre = static_cast<double>(i) - 0.5 * static_cast<double>(length - 1);
    if (size > 0) result[i] = from_centre * 2.0 / static_cast<double>(size - 1);
    if (size == 0 && length > 1) result[i] = from_centre * 2.0 / static_cast<double>(length - 1);
  }
  return result;
}

// The scaled share of the rows (or columns) in the features of a position: `scale` times the column `coordinate` of
// `position`, (P, 3), times the place, and the constant `offset` per feature.
template <typename C>
std::vector<C> position_table(const Tensor& position, int64_t coordinate, const std::vector<double>& at, const C* scale,
                              const std::vector<C>& offset) {
  std::vector<C> table(at.size() * kPositionWidth, C{0});
  for (size_t i = 0; i < at.size(); ++i) {
    for (int64_t p = 0; p < position.size(0); ++p) {
      const C factor = data<C>(position)[p * 3 + coordinate];
      table[i * kPositionWidth + p] = scale[p] * static_cast<C>(factor * at[i]) + offset[p];
    }
  }
  return table;
}

Tensor pairwise_attention(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& scale,
                          const Tensor& shift, const std::vector<Tensor>& weights, const std::vector<Tensor>& biases,
                          const std::optional<Tensor>& query_position, const std::optional<Tensor>& key_position,
                          const Pair& position_size, const std::optional<Tensor>& output_scale,
                          const std::optional<Tensor>& output_shift, const Pair& kernel_size,
                          const std::string& relation_name, const Pair& stride, const Pair& dilation,
                          const std::string& padding_mode, bool allow_tf32) {
  check_maps(query, key, value);
  PairwiseAttention problem{};
  problem.footprint = make_footprint(query.size(2), query.size(3), kernel_size, stride, dilation, padding_mode);
  problem.relation = parse_relation(relation_name);
  problem.batch = query.size(0), problem.channels = query.size(1), problem.value_channels = value.size(1);
  problem.positions = check_positions(query_position, key_position, position_size, query, kPositionWidth);
  problem.layers = static_cast<int64_t>(weights.size());
  const auto widths =
      check_mapping(scale, shift, weights, biases, problem.relation, problem.positions, query, value, kMappingLayers);
  std::copy(widths.begin(), widths.end(), problem.widths);
  check_epilogue(output_scale, output_shift, query, value);

  const Tensor queries = channels_side_by_side(query), keys = channels_side_by_side(key),
               values = channels_side_by_side(value);
  problem.query_steps = steps_of(queries), problem.key_steps = steps_of(keys), problem.value_steps = steps_of(values);
  const Footprint& footprint = problem.footprint;
  const DistinctPixels rows_read(footprint.rows, footprint.mode), columns_read(footprint.columns, footprint.mode);
  problem.rows_read = rows_read.view(), problem.columns_read = columns_read.view();
  const std::vector<int64_t> shape{problem.batch, problem.value_channels, footprint.rows.output_size(),
                                   footprint.columns.output_size()};
  const Tensor output = torch::stable::empty(shape, query.scalar_type(), std::nullopt, query.device(), std::nullopt,
                                             torch::headeronly::MemoryFormat::ChannelsLast);

  dispatch("query", query, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    using C = Compute<T>;
    const Tensor scales = as_contiguous(scale), shifts = as_contiguous(shift);
    const auto output_scales = as_contiguous(output_scale), output_shifts = as_contiguous(output_shift);
    PackedMapping<C> mapping{};
    mapping.scale = data<C>(scales), mapping.shift = data<C>(shifts);
    mapping.output_scale = output_scales ? data<C>(*output_scales) : nullptr;
    mapping.output_shift = output_shifts ? data<C>(*output_shifts) : nullptr;

    std::vector<C> query_rows, query_columns, key_rows, key_columns;
    if (query_position) {
      const Tensor here = as_contiguous(*query_position), there = as_contiguous(*key_position);
      const auto down = places(footprint.rows.size, position_size.empty() ? 0 : position_size[0]);
      const auto right = places(footprint.columns.size, position_size.empty() ? 0 : position_size[1]);
      const C* const scale_of = mapping.scale + problem.relation_channels();
      const C* const shift_of = mapping.shift + problem.relation_channels();
      const std::vector<C> nothing(problem.positions, C{0});
      std::vector<C> here_offset(problem.positions), there_offset(problem.positions);
      for (int64_t p = 0; p < problem.positions; ++p) {
        here_offset[p] = scale_of[p] * data<C>(here)[p * 3 + 2] + shift_of[p];
        there_offset[p] = scale_of[p] * data<C>(there)[p * 3 + 2];
      }
      query_rows = position_table<C>(here, 1, down, scale_of, nothing);
      query_columns = position_table<C>(here, 0, right, scale_of, here_offset);
      key_rows = position_table<C>(there, 1, down, scale_of, nothing);
      key_columns = position_table<C>(there, 0, right, scale_of, there_offset);
    }
    mapping.query_rows = query_rows.data(), mapping.query_columns = query_columns.data();
    mapping.key_rows = key_rows.data(), mapping.key_columns = key_columns.data();

    std::deque<Scratch<C>> packed;
    for (int64_t layer = 0; layer < problem.layers; ++layer) {
      const Tensor layer_bias = as_contiguous(biases[layer]);
      const Tensor& weight = weights[layer];
      const int64_t largest = problem.widths[layer + 1] * kWidestVector;  // repeated until vectors are full
      packed.emplace_back(largest);
      C* const packed_bias = packed.back().data();
      SA_LAYERS_BEST(T, pad_bias, problem, layer, data<C>(layer_bias), packed_bias, &mapping.padded_widths[layer + 1]);
      mapping.biases[layer] = packed_bias;
      packed.emplace_back(mapping.padded_widths[layer + 1] * problem.widths[layer]);
      C* const packed_weight = packed.back().data();
      SA_LAYERS_BEST(T, pad_weight, problem, layer, data<C>(weight), weight.stride(0), weight.stride(1), packed_weight);
      mapping.weights[layer] = packed_weight;
    }
    bool by_rows = false;  // pixels in the lanes of vectors instead of channels
    SA_LAYERS_BEST(T, choose_rows, problem, &by_rows);
    if (by_rows) {
      const int64_t width = footprint.columns.output_size();
      share_tasks(problem.output_pixels() / width, larger(4, problem.grain() / width), [&](int64_t begin, int64_t end) {
        SA_LAYERS_BEST(T, pairwise_attention_by_rows, problem, mapping, data<T>(queries), data<T>(keys),
                       data<T>(values), mutable_data<T>(output), begin, end);
      });
    } else {
      share_tasks(problem.output_pixels(), problem.grain(), [&](int64_t begin, int64_t end) {
        SA_LAYERS_BEST(T, pairwise_attention, problem, mapping, data<T>(queries), data<T>(keys), data<T>(values),
                       mutable_data<T>(output), begin, end);
      });
    }
  });
  return output;
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("pairwise_attention", TORCH_BOX(&sa_layers::cpu::pairwise_attention));
}
