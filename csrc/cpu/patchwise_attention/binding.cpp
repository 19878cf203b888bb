// Binding of patchwise_attention.

#include <cstring>
#include <vector>

#include "cpu/patchwise_attention/problem.h"
#include "cpu/runtime/share_tasks.h"
#include "cpu/runtime/tensors.h"
#include "cpu/simd/dispatch.h"
#include "operands/attention.h"

#define SA_LAYERS_TARGET_INCLUDE "cpu/patchwise_attention/binding.cpp"
#include "cpu/simd/foreach_target.h"

// Compiled once for each instruction set.
#include "cpu/patchwise_attention/mapping.h"
#include "cpu/patchwise_attention/patchwise_attention.h"

#if SA_LAYERS_ONCE

namespace sa_layers::cpu {
namespace {

template <typename T>
ChannelsLast<const T> channels_last_data(const Tensor& map) {
  return {data<T>(map), pixel_step_of(map)};
}

// Memory for the packed parameters.
class PackedMapping {
 public:
  explicit PackedMapping(const PatchwiseAttention& problem) : memory_(size(problem)) {
    const bool is_padded = problem.weight_channels % kGroupColumns != 0;
    if (is_padded) std::memset(memory_.data(), 0, size(problem) * sizeof(float));
    mapping.hidden_stride = problem.hidden_stride(), mapping.weight_stride = problem.weight_stride();
    float* to = memory_.data();
    mapping.hidden_weight = to, to += problem.hidden_offset(problem.feature_taps());
    for (int64_t tap = 0; tap < problem.feature_taps(); ++tap) offsets_.push_back(problem.hidden_offset(tap));
    mapping.hidden_offsets = offsets_.data();
    mapping.hidden_bias = to, to += mapping.hidden_stride;
    mapping.weight = to, to += problem.weight_channels * mapping.weight_stride;
    mapping.bias = to, to += mapping.weight_stride;
    mapping.scale = to, mapping.shift = to + problem.features();
  }

  PatchwiseMapping mapping{};

 private:
  static int64_t size(const PatchwiseAttention& problem) {
    return problem.hidden_offset(problem.feature_taps()) + problem.hidden_stride() +
           (problem.weight_channels + 1) * problem.weight_stride() + 2 * problem.features();
  }

  Scratch<float> memory_;
  std::vector<int64_t> offsets_;
};

// Tiles of about 56 pixels, four blocks of the widest kernel, whose sums stay in the cache; smaller if some threads
// would have no tile. With pixels in the lanes, bands of rows.
int64_t tile_pixels(const PatchwiseAttention& problem) {
  const int64_t pixels = problem.footprint.output_pixels(), width = problem.footprint.columns.output_size();
  const int64_t threads = torch::stable::get_num_threads(), images = max(1, problem.batch);
  if (problem.pixels_in_lanes) {
    const int64_t rows = problem.footprint.rows.output_size();
    const int64_t per_thread = ceil_div(rows, ceil_div(threads, images));
    return width * max(1, min(per_thread, max(4, 1024 / width)));
  }
  const int64_t tiles = max(ceil_div(pixels, 56), min(ceil_div(threads, images), ceil_div(pixels, 14)));
  return ceil_div(pixels, tiles);
}

Tensor patchwise_attention(const Tensor& query, const Tensor& key, const Tensor& value,
                           const std::vector<Tensor>& scales, const std::vector<Tensor>& shifts,
                           const std::vector<Tensor>& weights, const std::vector<Tensor>& biases,
                           const OptionalTensor& output_scale, const OptionalTensor& output_shift,
                           const Pair& kernel_size, const std::string& relation, const Pair& stride,
                           const Pair& dilation, const std::string& padding_mode, bool allow_tf32) {
  check_maps(query, key, value);
  const auto footprint = make_footprint(query.size(2), query.size(3), kernel_size, stride, dilation, padding_mode);
  PatchwiseAttention problem{footprint,
                             parse_patchwise_relation(relation),
                             query.size(0),
                             query.size(1),
                             value.size(1),
                             /*weight_channels=*/1,
                             /*pixels_in_lanes=*/false,
                             /*tile_pixels=*/1};
  STD_TORCH_CHECK(footprint.pixels() < (int64_t{1} << 30), "a map must have less than 2**30 pixels, got ",
                  footprint.pixels());
  problem.weight_channels =
      check_patchwise_mapping({scales, shifts, weights, biases}, problem.relation, footprint.taps(), query, value);
  check_epilogue(output_scale, output_shift, query, value);
  const auto* implementation = select(kImplementations, problem, vector_type(query.scalar_type()));
  STD_TORCH_CHECK(implementation != nullptr, "query must be float32, float16 or bfloat16, got float64");
  problem.pixels_in_lanes = implementation == &kPixelLanes;
  problem.tile_pixels = tile_pixels(problem);

  std::vector<Tensor> copies;  // keeps them alive
  const auto parameter = [&](const Tensor& tensor) {
    return data<float>(copies.emplace_back(as_contiguous(in_compute_dtype(tensor, query))));
  };
  const MappingParameters parameters{parameter(scales[0]),  parameter(shifts[0]), parameter(weights[0]),
                                     parameter(biases[0]),  parameter(scales[1]), parameter(shifts[1]),
                                     parameter(weights[1]), parameter(biases[1])};
  PackedMapping packed(problem);
  const int64_t task_numbers = kGroupColumns * kPackedChannels * footprint.taps();
  // A thread is worth starting for about 20 microseconds at two numbers a nanosecond.
  torch::stable::parallel_for(
      0, problem.packing_tasks(), max(1, 40'000 / task_numbers), [&](int64_t begin, int64_t end) {
        SA_LAYERS_DISPATCH(float, pack_mapping, problem, parameters, packed.mapping, begin, end);
      });
  const OptionalTensor output_scales = as_contiguous(output_scale), output_shifts = as_contiguous(output_shift);
  if (output_scale) {
    packed.mapping.output_scale = data<float>(*output_scales);
    packed.mapping.output_shift = data<float>(*output_shifts);
  }

  const Tensor queries = channels_last(query), keys = channels_last(key), values = channels_last(value);
  const std::vector<int64_t> shape{problem.batch, problem.channels, footprint.rows.output_size(),
                                   footprint.columns.output_size()};
  const Tensor output = torch::stable::empty(shape, query.scalar_type(), std::nullopt, query.device(), std::nullopt,
                                             torch::headeronly::MemoryFormat::ChannelsLast);
  const TapSources sources(footprint);
  // A thread is worth starting for about 50 microseconds at ten products a nanosecond.
  const int64_t taps = footprint.taps(), features = problem.feature_taps();
  const int64_t products_of_pixel =
      problem.weight_channels * (features * problem.feature_channels() + taps * problem.weight_channels) +
      taps * problem.channels + (problem.is_product() ? features * problem.relation_channels : 0);
  const int64_t grain = max(1, 500'000 / (products_of_pixel * problem.tile_pixels));
  dispatch_dtype("query", query, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    if constexpr (sizeof(T) != sizeof(double)) {
      const PatchwiseOperands<T> operands{problem,
                                          packed.mapping,
                                          sources,
                                          channels_last_data<T>(queries),
                                          channels_last_data<T>(keys),
                                          channels_last_data<T>(values),
                                          {mutable_data<T>(output), problem.channels}};
      share_tasks(problem.batch * problem.tiles(), grain, [&](int64_t begin, int64_t end) {
        SA_LAYERS_DISPATCH(T, patchwise_attention, operands, begin, end);
      });
    }
  });
  return output;
}

// The text of the schema's operator of this name.
std::string patchwise_attention_implementations(const std::string& dtype, int64_t channels, int64_t value_channels,
                                                int64_t weight_channels, const Pair& kernel_size,
                                                const std::string& relation, const Pair& stride, const Pair& dilation) {
  const auto footprint = make_footprint(1, 1, kernel_size, stride, dilation, "reflect");
  const PatchwiseAttention problem{footprint,
                                   parse_patchwise_relation(relation),
                                   1,
                                   channels,
                                   value_channels,
                                   weight_channels,
                                   /*pixels_in_lanes=*/false,
                                   /*tile_pixels=*/1};
  return describe(kImplementations, problem, vector_type(parse_dtype(dtype)));
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("patchwise_attention", TORCH_BOX(&sa_layers::cpu::patchwise_attention));
}

// No tensor argument names a device, so the kernel is registered for all of them.
STABLE_TORCH_LIBRARY_IMPL(sa_layers, CompositeExplicitAutograd, library) {
  library.impl("patchwise_attention_implementations", TORCH_BOX(&sa_layers::cpu::patchwise_attention_implementations));
}

#endif  // SA_LAYERS_ONCE
