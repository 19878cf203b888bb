// Binding of patchwise_attention.

#include "cpu/patchwise_attention.h"

#include <cstring>
#include <optional>

#include "cpu/binding.h"
#include "cpu/share_tasks.h"
#include "operands/attention.h"

#define SA_LAYERS_KERNELS "cpu/patchwise_attention_kernels.inc"
#include "cpu/for_each_capability.inc"

namespace sa_layers::cpu {
namespace {

template <typename T>
ChannelsLast<const T> channels_last_data(const Tensor& map) {
  return {data<T>(map), pixel_step_of(map)};
}

// Matrices as the kernels read them. Those whose rows are made of whole groups of columns are used as they are.
class PackedMapping {
 public:
  PackedMapping(const PatchwiseAttention& problem, const float* hidden_weight, const float* hidden_bias,
                const float* weight, const float* bias)
      : packed_(size(problem)) {
    const int64_t weights = problem.weight_channels, taps = problem.footprint.taps(), period = problem.hidden_period();
    const int64_t depth = problem.feature_taps() * problem.feature_channels(), tap_step = problem.tap_step();
    mapping.hidden_weight = hidden_weight, mapping.hidden_bias = hidden_bias, mapping.hidden_step = weights;
    mapping.weight = weight, mapping.bias = bias, mapping.weight_step = taps * weights;
    float* to = packed_.data();
    if (!problem.has_few_weights() && weights % kGroupColumns != 0) {
      mapping.hidden_step = pad_columns(weights);
      mapping.hidden_weight = to;
      for (int64_t k = 0; k < depth; ++k) {
        for (int64_t n = 0; n < weights; ++n) to[k % period + n * period] = hidden_weight[k * weights + n];
        if (k % period == period - 1) to += mapping.hidden_step;
      }
      mapping.hidden_bias = to;
      for (int64_t n = 0; n < weights; ++n) to[n * period] = hidden_bias[n];
      to += mapping.hidden_step;
    }
    if (mapping.weight_step % kGroupColumns != 0 || tap_step != weights) {
      mapping.weight_step = pad_columns(taps * tap_step);
      const auto pack_row = [&](const float* from) {
        for (int64_t tap = 0; tap < taps; ++tap) {
          std::memcpy(to + tap * tap_step, from + tap * weights, weights * sizeof(float));
        }
        to += mapping.weight_step;
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
           (problem.weight_channels + 1) * pad_columns(problem.footprint.taps() * problem.tap_step());
  }

  std::vector<float> packed_;
};

// Tiles of about 56 pixels, four blocks of the widest kernel, which keep their sums in the cache; smaller where there
// would be none for some threads. Where pixels fill the vectors, bands of rows.
int64_t tile_pixels(const PatchwiseAttention& problem) {
  const int64_t pixels = problem.footprint.output_pixels(), width = problem.footprint.columns.output_size();
  const int64_t threads = torch::stable::get_num_threads(), images = larger(1, problem.batch);
  if (problem.has_few_weights()) {
    const int64_t rows = problem.footprint.rows.output_size();
    const int64_t per_thread = divide_up(rows, divide_up(threads, images));
    return width * larger(1, smaller(per_thread, larger(4, 1024 / width)));
  }
  const int64_t tiles = larger(divide_up(pixels, 56), smaller(divide_up(threads, images), divide_up(pixels, 14)));
  return divide_up(pixels, tiles);
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
      footprint, parse_patchwise_relation(relation), query.size(0), query.size(1), value.size(1), hidden_bias.size(0),
      1};
  STD_TORCH_CHECK(footprint.pixels() < (int64_t{1} << 30), "a map must have less than 2**30 pixels, got ",
                  footprint.pixels());
  check_patchwise_mapping(scale, shift, hidden_weight, hidden_bias, weight, bias, problem.relation, footprint.taps(),
                          query, value);
  check_epilogue(output_scale, output_shift, query, value);
  problem.tile_pixels = tile_pixels(problem);

  // A kernel of float64 is not there; its parameters are not read as what they are not.
  STD_TORCH_CHECK(query.scalar_type() != ScalarType::Double, "query must be float32, float16 or bfloat16, got float64");
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
  // A thread is worth about 50 microseconds at ten products a nanosecond.
  const int64_t taps = footprint.taps(), weights = problem.weight_channels, features = problem.feature_taps();
  const int64_t products_of_pixel = weights * (features * problem.feature_channels() + taps * weights) +
                                    taps * problem.channels +
                                    (problem.is_product() ? features * problem.relation_channels : 0);
  const int64_t grain = larger(1, 500'000 / (products_of_pixel * problem.tile_pixels));
  dispatch("query", query, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    if constexpr (sizeof(T) != sizeof(double)) {
      const PatchwiseOperands<T> operands{problem,
                                          packed.mapping,
                                          sources,
                                          channels_last_data<T>(queries),
                                          channels_last_data<T>(keys),
                                          channels_last_data<T>(values),
                                          {mutable_data<T>(output), problem.channels}};
      share_tasks(problem.batch * problem.tiles(), grain,
                  [&](int64_t begin, int64_t end) { SA_LAYERS_BEST(T, patchwise_attention, operands, begin, end); });
    }
  });
  return output;
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("patchwise_attention", TORCH_BOX(&sa_layers::cpu::patchwise_attention));
}
