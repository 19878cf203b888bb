// Binding of pairwise_attention: checks, tables of pixels and positions, packed weights of the mapping, tasks.

#include <algorithm>
#include <deque>

#include "cpu/pairwise_attention/problem.h"
#include "cpu/runtime/share_tasks.h"
#include "cpu/runtime/tensors.h"
#include "cpu/simd/dispatch.h"
#include "operands/attention.h"

#define SA_LAYERS_TARGET_INCLUDE "cpu/pairwise_attention/binding.cpp"
#include "cpu/simd/foreach_target.h"

// Compiled once for each instruction set.
#include "cpu/pairwise_attention/channel_lanes.h"
#include "cpu/pairwise_attention/pixel_lanes.h"

#if SA_LAYERS_ONCE

namespace sa_layers::cpu {
namespace {

MapStrides strides_of(const Tensor& map) { return {map.stride(0), map.stride(2), map.stride(3)}; }

// Coordinates of pixels along an axis: from -1 to 1; or, for a `size`, such that a map of that size would reach from -1
// to 1, with 0 at the centre.
std::vector<double> coordinates(int64_t length, int64_t size) {
  std::vector<double> result(length, -1.0);
  for (int64_t i = 0; i < length; ++i) {
    const double from_centre = static_cast<double>(i) - 0.5 * static_cast<double>(length - 1);
    if (size > 0) result[i] = from_centre * 2.0 / static_cast<double>(size - 1);
    if (size == 0 && length > 1) result[i] = from_centre * 2.0 / static_cast<double>(length - 1);
  }
  return result;
}

// The contribution of the rows (or columns) to the features of a position: the column `coordinate` of `position`, (P,
// 3), times the coordinate, times `scale`, plus an `offset` for each feature.
template <typename C>
std::vector<C> position_table(const Tensor& position, int64_t coordinate, const std::vector<double>& at, const C* scale,
                              const std::vector<C>& offset) {
  std::vector<C> table(at.size() * kMaxPositions, C{0});
  for (size_t i = 0; i < at.size(); ++i) {
    for (int64_t p = 0; p < position.size(0); ++p) {
      const C factor = data<C>(position)[p * 3 + coordinate];
      table[i * kMaxPositions + p] = scale[p] * static_cast<C>(factor * at[i]) + offset[p];
    }
  }
  return table;
}

Tensor pairwise_attention(const Tensor& query, const Tensor& key, const Tensor& value,
                          const std::vector<Tensor>& scales, const std::vector<Tensor>& shifts,
                          const std::vector<Tensor>& weights, const std::vector<Tensor>& biases,
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
  problem.positions = check_positions(query_position, key_position, position_size, query, kMaxPositions);
  const MappingTensors parameters{scales, shifts, weights, biases};
  problem.layers = parameters.layers();
  const auto widths = check_pairwise_mapping(parameters, problem.relation, problem.positions, query, value, kMaxLayers);
  std::copy(widths.begin(), widths.end(), problem.widths);
  check_epilogue(output_scale, output_shift, query, value);

  const Tensor queries = with_contiguous_channels(query), keys = with_contiguous_channels(key),
               values = with_contiguous_channels(value);
  problem.query_strides = strides_of(queries), problem.key_strides = strides_of(keys),
  problem.value_strides = strides_of(values);
  const Footprint& footprint = problem.footprint;
  const DistinctPixels rows_read(footprint.rows, footprint.mode), columns_read(footprint.columns, footprint.mode);
  problem.rows_read = rows_read.view(), problem.columns_read = columns_read.view();
  const std::vector<int64_t> shape{problem.batch, problem.value_channels, footprint.rows.output_size(),
                                   footprint.columns.output_size()};
  const Tensor output = torch::stable::empty(shape, query.scalar_type(), std::nullopt, query.device(), std::nullopt,
                                             torch::headeronly::MemoryFormat::ChannelsLast);

  dispatch_dtype("query", query, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    using C = Compute<T>;
    const auto output_scales = as_contiguous(output_scale), output_shifts = as_contiguous(output_shift);
    std::vector<Tensor> copies;  // keeps them alive
    const auto vector = [&](const Tensor& tensor) {
      return data<C>(copies.emplace_back(as_contiguous(in_compute_dtype(tensor, query))));
    };
    PackedMapping<C> mapping{};
    mapping.scale = vector(scales[0]), mapping.shift = vector(shifts[0]);
    mapping.output_scale = output_scales ? data<C>(*output_scales) : nullptr;
    mapping.output_shift = output_shifts ? data<C>(*output_shifts) : nullptr;

    std::vector<C> query_rows, query_columns, key_rows, key_columns;
    if (query_position) {
      const Tensor query_plane = as_contiguous(*query_position), key_plane = as_contiguous(*key_position);
      const auto row_coordinates = coordinates(footprint.rows.size, position_size.empty() ? 0 : position_size[0]);
      const auto column_coordinates = coordinates(footprint.columns.size, position_size.empty() ? 0 : position_size[1]);
      const C* const scale_of = mapping.scale + problem.relation_channels();
      const C* const shift_of = mapping.shift + problem.relation_channels();
      const std::vector<C> no_offset(problem.positions, C{0});
      std::vector<C> query_offset(problem.positions), key_offset(problem.positions);
      for (int64_t p = 0; p < problem.positions; ++p) {
        query_offset[p] = scale_of[p] * data<C>(query_plane)[p * 3 + 2] + shift_of[p];
        key_offset[p] = scale_of[p] * data<C>(key_plane)[p * 3 + 2];
      }
      query_rows = position_table<C>(query_plane, 1, row_coordinates, scale_of, no_offset);
      query_columns = position_table<C>(query_plane, 0, column_coordinates, scale_of, query_offset);
      key_rows = position_table<C>(key_plane, 1, row_coordinates, scale_of, no_offset);
      key_columns = position_table<C>(key_plane, 0, column_coordinates, scale_of, key_offset);
    }
    mapping.query_rows = query_rows.data(), mapping.query_columns = query_columns.data();
    mapping.key_rows = key_rows.data(), mapping.key_columns = key_columns.data();

    std::deque<Scratch<C>> packed;
    for (int64_t layer = 0; layer < problem.layers; ++layer) {
      const bool is_last = layer + 1 == problem.layers;
      const Tensor weight = in_compute_dtype(weights[layer], query);
      const MappingLayer<C> from{data<C>(weight),
                                 vector(biases[layer]),
                                 weight.stride(0),
                                 weight.stride(1),
                                 is_last ? nullptr : vector(scales[layer + 1]),
                                 is_last ? nullptr : vector(shifts[layer + 1])};
      const int64_t capacity = problem.widths[layer + 1] * kMaxLanes;  // repeated until vectors are full
      packed.emplace_back(capacity);
      C* const packed_bias = packed.back().data();
      SA_LAYERS_DISPATCH(T, pack_bias, problem, layer, from, packed_bias, &mapping.padded_widths[layer + 1]);
      mapping.biases[layer] = packed_bias;
      packed.emplace_back(mapping.padded_widths[layer + 1] * problem.widths[layer]);
      C* const packed_weight = packed.back().data();
      SA_LAYERS_DISPATCH(T, pack_weight, problem, layer, from, packed_weight);
      mapping.weights[layer] = packed_weight;
    }
    if (select(kImplementations, problem, vector_type(query.scalar_type())) == &kPixelLanes) {
      const int64_t width = footprint.columns.output_size();
      share_tasks(problem.output_pixels() / width, max(4, problem.grain() / width), [&](int64_t begin, int64_t end) {
        SA_LAYERS_DISPATCH(T, pairwise_attention_pixel_lanes, problem, mapping, data<T>(queries), data<T>(keys),
                           data<T>(values), mutable_data<T>(output), begin, end);
      });
    } else {
      share_tasks(problem.output_pixels(), problem.grain(), [&](int64_t begin, int64_t end) {
        SA_LAYERS_DISPATCH(T, pairwise_attention_channel_lanes, problem, mapping, data<T>(queries), data<T>(keys),
                           data<T>(values), mutable_data<T>(output), begin, end);
      });
    }
  });
  return output;
}

// The text of the schema's operator of this name.
std::string pairwise_attention_implementations(const std::string& dtype, int64_t channels, int64_t value_channels,
                                               const std::vector<int64_t>& widths, int64_t positions,
                                               const Pair& kernel_size, const std::string& relation, const Pair& stride,
                                               const Pair& dilation, const Pair& size) {
  const VectorType vector = vector_type(parse_dtype(dtype));
  PairwiseAttention problem{};
  check_pair("stride", stride, false);
  if (!size.empty()) check_pair("size", size, false);
  // Rows of unknown length are taken to fill their vectors.
  const int64_t height = size.empty() ? stride[0] : size[0], width = size.empty() ? stride[1] * vector.lanes : size[1];
  problem.footprint = make_footprint(height, width, kernel_size, stride, dilation, "reflect");
  problem.relation = parse_relation(relation);
  problem.channels = channels, problem.value_channels = value_channels, problem.positions = positions;
  problem.layers = static_cast<int64_t>(widths.size()) - 1;
  return describe(kImplementations, problem, vector);
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("pairwise_attention", TORCH_BOX(&sa_layers::cpu::pairwise_attention));
}

// No tensor argument names a device, so the kernel is registered for all of them.
STABLE_TORCH_LIBRARY_IMPL(sa_layers, CompositeExplicitAutograd, library) {
  library.impl("pairwise_attention_implementations", TORCH_BOX(&sa_layers::cpu::pairwise_attention_implementations));
}

#endif  // SA_LAYERS_ONCE
