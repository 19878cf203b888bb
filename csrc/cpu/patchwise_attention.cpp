// Binding of patchwise_attention.

#include "cpu/patchwise_attention.h"

#include <cstring>
#include <optional>

#include "cpu/binding.h"
#include "cpu/share_tasks.h"

#define SA_LAYERS_KERNELS "cpu/patchwise_attention_kernels.inc"
#include "cpu/for_each_capability.inc"

namespace sa_layers::cpu {
namespace {

using OptionalTensor = std::optional<Tensor>;

// How far apart the pixels of a map lie, if it is channels last, be it a slice of the channels of another map; or -1.
int64_t pixel_step_of(const Tensor& map) {
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

Tensor channels_last(const Tensor& map) {
  using torch::headeronly::MemoryFormat;
  return pixel_step_of(map) >= 0 ? map : torch::stable::contiguous(map, MemoryFormat::ChannelsLast);
}

template <typename T>
ChannelsLast<const T> channels_last_data(const Tensor& map) {
  return {data<T>(map), pixel_step_of(map)};
}

// A parameter of the mapping, contiguous.
Tensor parameter(const char* name, const Tensor& tensor, const std::vector<int64_t>& shape, const Tensor& query) {
  check_shape(name, tensor, shape);
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Float, name, " must be float32, got ",
                  torch::headeronly::toString(tensor.scalar_type()));
  STD_TORCH_CHECK(tensor.device() == query.device(), name, " must be on the device of query");
  return as_contiguous(tensor);
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

PatchwiseRelation parse_relation(const std::string& name) {
  if (name == "concatenation") return PatchwiseRelation::kConcatenation;
  if (name == "star") return PatchwiseRelation::kStar;
  STD_TORCH_CHECK(name == "clique", "relation must be 'concatenation', 'star' or 'clique', got '", name, "'");
  return PatchwiseRelation::kClique;
}

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
                           const Pair& stride, const Pair& dilation, const std::string& padding_mode) {
  check_dims("query", query, 4);
  check_dims("value", value, 4);
  check_dims("hidden_bias", hidden_bias, 1);
  check_like("key", key, "query", query);
  check_like("value", value, "query", query);
  check_shape("key", key, shape_of(query));
  check_shape("value", value, {query.size(0), value.size(1), query.size(2), query.size(3)});
  const auto footprint = make_footprint(query.size(2), query.size(3), kernel_size, stride, dilation, padding_mode);
  PatchwiseAttention problem{
      footprint, parse_relation(relation), query.size(0), query.size(1), value.size(1), hidden_bias.size(0), 1};
  STD_TORCH_CHECK(footprint.pixels() < (int64_t{1} << 30), "a map must have less than 2**30 pixels, got ",
                  footprint.pixels());
  STD_TORCH_CHECK(problem.relation_channels > 0 && problem.weight_channels > 0 && problem.channels > 0 &&
                      problem.channels % problem.weight_channels == 0,
                  "hidden_bias must have a size that divides the channels of value, ", problem.channels, ", got ",
                  problem.weight_channels);
  problem.tile_pixels = tile_pixels(problem);

  const int64_t taps = footprint.taps(), weights = problem.weight_channels;
  const std::vector<int64_t> affine{problem.feature_taps(), problem.feature_channels()};
  const Tensor scales = parameter("scale", scale, affine, query), shifts = parameter("shift", shift, affine, query);
  const Tensor hidden_weights = parameter("hidden_weight", hidden_weight, {affine[0], affine[1], weights}, query);
  const Tensor hidden_biases = parameter("hidden_bias", hidden_bias, {weights}, query);
  const Tensor all_weights = parameter("weight", weight, {weights, taps, weights}, query);
  const Tensor biases = parameter("bias", bias, {taps, weights}, query);
  PackedMapping packed(problem, data<float>(hidden_weights), data<float>(hidden_biases), data<float>(all_weights),
                       data<float>(biases));
  packed.mapping.scale = data<float>(scales), packed.mapping.shift = data<float>(shifts);
  STD_TORCH_CHECK(output_scale.has_value() == output_shift.has_value(),
                  "output_scale and output_shift must be given together");
  OptionalTensor output_scales, output_shifts;
  if (output_scale) {
    output_scales = parameter("output_scale", *output_scale, {problem.channels}, query);
    output_shifts = parameter("output_shift", *output_shift, {problem.channels}, query);
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
  const int64_t products_of_pixel = weights * (affine[0] * affine[1] + taps * weights) + taps * problem.channels +
                                    (problem.is_product() ? affine[0] * problem.relation_channels : 0);
  const int64_t grain = larger(1, 500'000 / (products_of_pixel * problem.tile_pixels));
  dispatch("query", query, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    if constexpr (sizeof(T) == sizeof(double)) {
      STD_TORCH_CHECK(false, "query must be float32, float16 or bfloat16, got float64");
    } else {
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
