// The features of footprints after the first norm and its ReLU, a panel at a time: the left operand of the hidden
// layer, one row of shared memory per output pixel.
#pragma once

#include <cstdint>

#include "cuda/common/element.cuh"
#include "cuda/common/factor.cuh"
#include "cuda/common/pack.cuh"
#include "cuda/patchwise_attention/plan.h"
#include "cuda/patchwise_attention/problem.h"
#include "footprint.h"

namespace sa_layers::cuda {

template <typename T>
struct PatchwiseAttentionOperands {
  using C = Compute<T>;
  const T *query, *key, *value;
  const C *scale, *shift, *hidden_weight, *hidden_bias, *weight, *bias, *output_scale, *output_shift;
  T* output;
  // In packs of four channels, or of four outputs of a matrix.
  bool query_aligned, key_aligned, value_aligned, output_aligned, norm_aligned, matrices_aligned;
};

// Assigns the threads of a block to packs of four elements of some rows, so that each thread keeps its column.
struct ThreadPosition {
  int column, row, rows;  // `row` is the first, `rows` the stride to the thread's next

  __device__ explicit ThreadPosition(int columns) {
    const int thread = int(threadIdx.x);
    rows = int(blockDim.x) / columns, column = thread % columns, row = thread / columns;
    if (row == rows) row = INT32_MAX;  // an idle thread
  }
};

// Lists the pixels that a block reads: for each output pixel its centre and then every tap, as indices into the batch;
// -1 beyond the border. One thread per pixel and row of taps.
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

// A panel of the features: some taps, and some channels of each.
struct Panel {
  int tap, taps, channel, channels;
};

// Four channels of the query for tap 0, otherwise of the key at a tap; zeros beyond the border.
template <typename T>
__device__ Pack<Compute<T>, 4> load_features(const PatchwiseAttention& problem,
                                             const PatchwiseAttentionOperands<T>& operands, const int* sources, int tap,
                                             int channel, int count) {
  const int source = sources[tap];
  if (source < 0) return {};
  const T* const from =
      tap == 0 ? operands.query + source * problem.query_step : operands.key + source * problem.key_step;
  return load_channels(from + channel, count, tap == 0 ? operands.query_aligned : operands.key_aligned);
}

// The dot product of a query and a key, of a pair as the relation numbers them.
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
    const int count = min(4, channels - channel);
    const Pack<Compute<T>, 4> one = load_channels(query + channel, count, operands.query_aligned);
    const Pack<Compute<T>, 4> other = load_channels(key + channel, count, operands.key_aligned);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum += one[i] * other[i];
  }
  return sum;
}

// Writes a panel, `depth` numbers per pixel, with zeros after the last channel of a tap and after the last tap.
template <typename T, typename Number>
__device__ void activate(const PatchwiseAttention& problem, const PatchwiseAttentionPlan& plan,
                         const PatchwiseAttentionOperands<T>& operands, const int* sources, int pixels,
                         const Panel& panel, int depth, Number* left) {
  using C = Compute<T>;
  const ThreadPosition place(depth / 4);
  const int packs = plan.panel_channels / 4, tap = place.column / packs, channel = place.column % packs * 4;
  const int count = tap < panel.taps ? min(4, panel.channels - channel) : 0;
  const int feature = (panel.tap + tap) * problem.feature_channels() + panel.channel + channel;
  Pack<C, 4> scale = {}, shift = {};
  if (count > 0) {
    scale = load_channels(operands.scale + feature, count, operands.norm_aligned);
    shift = load_channels(operands.shift + feature, count, operands.norm_aligned);
  }
#pragma unroll 2
  for (int pixel = place.row; pixel < pixels; pixel += place.rows) {
    const int* const of_pixel = sources + pixel * plan.sources_step;
    Pack<C, 4> features = {};
    if (count > 0) {
      features = load_features(problem, operands, of_pixel, panel.tap + tap, panel.channel + channel, count);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) features[i] = relu(scale[i] * features[i] + shift[i]);
    store_factors(features, left + pixel * plan.left_stride + 4 * place.column);
  }
}

// The same for the relations that are products.
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
