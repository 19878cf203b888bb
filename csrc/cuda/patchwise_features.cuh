// The features of footprints after the first norm and its ReLU, a panel of them at a time: the left factor of the
// hidden layer, a row of shared memory for each output pixel.
#pragma once

#include "cuda/factor.cuh"
#include "cuda/patchwise_attention_plan.h"

namespace sa_layers::cuda {

template <typename T>
struct PatchwiseAttentionOperands {
  using C = Compute<T>;
  const T *query, *key, *value;
  const C *scale, *shift, *hidden_weight, *hidden_bias, *weight, *bias, *output_scale, *output_shift;
  T* output;
  // Whether four channels, or four outputs of a matrix, can be read or written at once.
  bool query_aligned, key_aligned, value_aligned, output_aligned, norm_aligned, matrices_aligned;
};

// The threads of a block before the elements of some rows, four at a time, so that each keeps to its column.
struct Place {
  int column, row, rows;  // the first row, and how many go on at once

  __device__ explicit Place(int columns) {
    const int thread = int(threadIdx.x);
    rows = int(blockDim.x) / columns, column = thread % columns, row = thread / columns;
    if (row == rows) row = INT32_MAX;  // a thread that is left over
  }
};

// What the output pixels of a block read: for each the pixel itself and then every tap, counted through the batch; -1
// beyond the border. A thread for a pixel and a row of its taps.
__device__ inline void list_sources(const PatchwiseAttention& problem, int64_t first, int pixels, int step,
                                    int* sources) {
  const Axis &down = problem.footprint.rows, &right = problem.footprint.columns;
  const int height = int(down.size), width = int(right.size), output_width = int(right.output_size());
  const int column_taps = int(right.kernel), in_image = int(problem.footprint.output_pixels());
  for (int item = int(threadIdx.x); item < pixels * int(down.kernel); item += int(blockDim.x)) {
    const int pixel = item % pixels, row_tap = item / pixels, output = int(first) + pixel;
    const int image = output / in_image, place = output % in_image, row = place / output_width,
              column = place % output_width;
    int* const of_pixel = sources + pixel * step;
    if (row_tap == 0) of_pixel[0] = (image * height + row * int(down.stride)) * width + column * int(right.stride);
    const int y = int(down.pixel(down.padded(row, row_tap), problem.footprint.mode));
    for (int column_tap = 0; column_tap < column_taps; ++column_tap) {
      const int x = int(right.pixel(right.padded(column, column_tap), problem.footprint.mode));
      of_pixel[1 + row_tap * column_taps + column_tap] = y < 0 || x < 0 ? -1 : (image * height + y) * width + x;
    }
  }
}

// Some taps, and some channels of each.
struct Panel {
  int tap, taps, channel, channels;
};

// Four channels of the query, for tap 0, or of the key at a tap of its own. Beyond the border they are zeros.
template <typename T>
__device__ Four<Compute<T>> load_features(const PatchwiseAttention& problem,
                                          const PatchwiseAttentionOperands<T>& operands, const int* sources, int tap,
                                          int channel, int count) {
  const int source = sources[tap];
  if (source < 0) return {};
  const T* const from =
      tap == 0 ? operands.query + source * problem.query_step : operands.key + source * problem.key_step;
  return load_channels(from + channel, count, tap == 0 ? operands.query_aligned : operands.key_aligned);
}

// The product of a query and a key: those of a pair that the relation numbers.
template <typename T>
__device__ Compute<T> multiply_pair(const PatchwiseAttention& problem, const PatchwiseAttentionOperands<T>& operands,
                                    const int* sources, int pair) {
  const int taps = int(problem.footprint.taps()), channels = problem.relation_channels;
  const int here = sources[problem.relation == PatchwiseRelation::kStar ? 0 : 1 + pair / taps];
  const int there = sources[1 + pair % taps];
  if (here < 0 || there < 0) return 0;
  const T* const query = operands.query + here * problem.query_step;
  const T* const key = operands.key + there * problem.key_step;
  Compute<T> sum = 0;
  for (int channel = 0; channel < channels; channel += 4) {
    const int count = least(4, channels - channel);
    const Four<Compute<T>> one = load_channels(query + channel, count, operands.query_aligned);
    const Four<Compute<T>> other = load_channels(key + channel, count, operands.key_aligned);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum += one.of[i] * other.of[i];
  }
  return sum;
}

// Writes a panel, `depth` numbers for each pixel, zeros behind the last channel of a tap and behind the last tap.
template <typename T, typename Number>
__device__ void activate(const PatchwiseAttention& problem, const PatchwiseAttentionPlan& plan,
                         const PatchwiseAttentionOperands<T>& operands, const int* sources, int pixels,
                         const Panel& panel, int depth, Number* left) {
  using C = Compute<T>;
  const Place place(depth / 4);
  const int quads = plan.panel_channels / 4, tap = place.column / quads, channel = place.column % quads * 4;
  const int count = tap < panel.taps ? least(4, panel.channels - channel) : 0;
  const int feature = (panel.tap + tap) * problem.feature_channels() + panel.channel + channel;
  Four<C> scale = {}, shift = {};
  if (count > 0) {
    scale = load_channels(operands.scale + feature, count, operands.norm_aligned);
    shift = load_channels(operands.shift + feature, count, operands.norm_aligned);
  }
#pragma unroll 2
  for (int pixel = place.row; pixel < pixels; pixel += place.rows) {
    const int* const of_pixel = sources + pixel * plan.sources_step;
    Four<C> features = {};
    if (count > 0) {
      features = load_features(problem, operands, of_pixel, panel.tap + tap, panel.channel + channel, count);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) features.of[i] = relu(scale.of[i] * features.of[i] + shift.of[i]);
    store_factors(features, left + pixel * plan.left_stride + 4 * place.column);
  }
}

// The same for products, one at a time.
template <typename T, typename Number>
__device__ void activate_products(const PatchwiseAttention& problem, const PatchwiseAttentionPlan& plan,
                                  const PatchwiseAttentionOperands<T>& operands, const int* sources, int pixels,
                                  const Panel& panel, int depth, Number* left) {
  for (int item = int(threadIdx.x); item < pixels * depth; item += int(blockDim.x)) {
    const int pixel = item / depth, channel = item % depth, feature = panel.channel + channel;
    Compute<T> number = 0;
    if (channel < panel.channels) {
      number = multiply_pair(problem, operands, sources + pixel * plan.sources_step, feature);
      number = relu(operands.scale[feature] * number + operands.shift[feature]);
    }
    round_to_factor(number, left[pixel * plan.left_stride + channel]);
  }
}

}  // namespace sa_layers::cuda
