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
#include "cpu/patchwise_attention/patchwise_attention.h"

#if SA_LAYERS_ONCE

namespace sa_layers::cpu {
namespace {

template <typename T>
ChannelsLast<const T> channels_last_data(const Tensor& map) {
  return {data<T>(map), pixel_step_of(map)};
}

// The matrices as the kernels read them. Matrices whose rows are whole groups of columns are used as they are.
class PackedMapping {
 public:
  PackedMapping(const PatchwiseAttention& problem, const float* hidden_weight, const float* hidden_bias,
                const float* weight, const float* bias)
      : packed_(size(problem)) {
    const int64_t weights = problem.weight_channels, taps = problem.footprint.taps(), period = problem.hidden_period();
    const int64_t depth = problem.feature_taps() * problem.feature_channels(), tap_stride = problem.tap_stride();
    mapping.hidden_weight = hidden_weight, mapping.hidden_bias = hidden_bias, mapping.hidden_stride = weights;
    mapping.weight = weight, mapping.bias = bias, mapping.weight_stride = taps * weights;
    float* to = packed_.data();
    if (!problem.pixels_in_lanes && weights % kGroupColumns != 0) {
      mapping.hidden_stride = pad_columns(weights);
      mapping.hidden_weight = to;
      for (int64_t k = 0; k < depth; ++k) {
        for (int64_t n = 0; n < weights; ++n) to[k % period + n * period] = hidden_weight[k * weights + n];
        if (k % period == period - 1) to += mapping.hidden_stride;
      }
      mapping.hidden_bias = to;
      for (int64_t n = 0; n < weights; ++n) to[n * period] = hidden_bias[n];
      to += mapping.hidden_stride;
    }
    if (mapping.weight_stride % kGroupColumns != 0 || tap_stride != weights) {
      mapping.weight_stride = pad_columns(taps * tap_stride);
      const auto pack_row = [&](const float* from) {
        for (int64_t tap = 0; tap < taps; ++tap) {
          std::memcpy(to + tap * tap_stride, from + tap * weights, weights * sizeof(float));
        }
        to += mapping.weight_stride;
      };
      mapping.weight = to;
      for (int64_t k = 0; k < weights; ++k) pack_row(weight + k * taps * weights);
      mapping.bias = to;
      pack_row(bias);
    }
  }

  PatchwiseMapping mapping{};

 private:
  // Zeros, for the columns that pad a group.
  static int64_t size(const PatchwiseAttention& problem) {
    if (problem.weight_channels % kGroupColumns == 0) return 0;
    const int64_t depth = problem.feature_taps() * problem.feature_channels();
    return (depth + 1) * pad_columns(problem.weight_channels) +
           (problem.weight_channels + 1) * pad_columns(problem.footprint.taps() * problem.tap_stride());
  }

  std::vector<float> packed_;
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

Tensor patchwise_attention(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& scale,
                           const Tensor& shift, const Tensor& hidden_weight, const Tensor& hidden_bias,
                           const Tensor& weight, const Tensor& bias, const OptionalTensor& output_scale,
                           const OptionalTensor& output_shift, const Pair& kernel_size, const std::string& relation,
                           const Pair& stride, const Pair& dilation, const std::string& padding_mode, bool allow_tf32) {
  check_maps(query, key, value);
  check_dims("hidden_bias", hidden_bias, 1);
  const auto footprint = make_footprint(query.size(2), query.size(3), kernel_size, stride, dilation, padding_mode);
  PatchwiseAttention problem{
      footprint,           parse_patchwise_relation(relation), query.size(0),    query.size(1), value.size(1),
      hidden_bias.size(0), /*pixels_in_lanes=*/false,          /*tile_pixels=*/1};
  STD_TORCH_CHECK(footprint.pixels() < (int64_t{1} << 30), "a map must have less than 2**30 pixels, got ",
                  footprint.pixels());
  check_patchwise_mapping(scale, shift, hidden_weight, hidden_bias, weight, bias, problem.relation, footprint.taps(),
                          query, value);
  check_epilogue(output_scale, output_shift, query, value);
  const auto* implementation = select(kImplementations, problem, vector_type(query.scalar_type()));
  STD_TORCH_CHECK(implementation != nullptr, "query must be float32, float16 or bfloat16, got float64");
  problem.pixels_in_lanes = implementation == &kPixelLanes;
  problem.tile_pixels = tile_pixels(problem);

  const Tensor scales = as_contiguous(scale), shifts = as_contiguous(shift);
  const Tensor hidden_weights = as_contiguous(hidden_weight), hidden_biases = as_contiguous(hidden_bias);
  const Tensor all_weights = as_contiguous(weight), biases = as_contiguous(bias);
  PackedMapping packed(problem, data<float>(hidden_weights), data<float>(hidden_biases), data<float>(all_weights),
                       data<float>(biases));
  packed.mapping.scale = data<float>(scales), packed.mapping.shift = data<float>(shifts);
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
  const int64_t taps = footprint.taps(), weights = problem.weight_channels, features = problem.feature_taps();
  const int64_t products_of_pixel = weights * (features * problem.feature_channels() + taps * weights) +
                                    taps * problem.channels +
                                    (problem.is_product() ? features * problem.relation_channels : 0);
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
