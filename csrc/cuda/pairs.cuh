// The pairs of output pixels and their taps: where they lie, and their features after relation, position, norm and
// ReLU, a row of shared memory for each.
#pragma once

#include "cuda/factor.cuh"
#include "cuda/pairwise_attention_plan.h"

namespace sa_layers::cuda {

template <typename T>
struct PairwiseAttentionOperands {
  using C = Compute<T>;
  const T *query, *key, *value;
  const C *scale, *shift;
  const C *weights[kMappingLayers], *biases[kMappingLayers];
  const C *query_position, *key_position, *output_scale, *output_shift;
  T* output;
  bool query_aligned, key_aligned, value_aligned, output_aligned;  // four channels can be read or written at once
};

// The pixels of a block.
__device__ inline void find_centres(const PairwiseAttention& problem, int64_t first, int pixels, Centre* centres) {
  const int64_t in_image = problem.footprint.output_pixels(), width = problem.footprint.columns.output_size();
  for (int pixel = int(threadIdx.x); pixel < pixels; pixel += int(blockDim.x)) {
    const int64_t place = (first + pixel) % in_image;
    centres[pixel] = {(first + pixel) / in_image, int(place / width), int(place % width)};
  }
}

// What the rows of a round read: the pixels at its first tap, then at the next.
__device__ inline void find_neighbours(const PairwiseAttention& problem, const Centre* centres, int pixels,
                                       int first_tap, int rows, Neighbour* neighbours) {
  const Footprint& footprint = problem.footprint;
  const int kernel_width = int(footprint.columns.kernel);
  for (int row = int(threadIdx.x); row < rows; row += int(blockDim.x)) {
    const Centre centre = centres[row % pixels];
    const int tap = first_tap + row / pixels;
    const int64_t y = footprint.rows.pixel(footprint.rows.padded(centre.row, tap / kernel_width), footprint.mode);
    const int64_t x =
        footprint.columns.pixel(footprint.columns.padded(centre.column, tap % kernel_width), footprint.mode);
    const auto offset = [&](const MapSteps& steps) {
      return centre.image * steps.image + y * steps.row + x * steps.pixel;
    };
    neighbours[row] = y < 0 || x < 0
                          ? Neighbour{-1, -1, -1, -1}
                          : Neighbour{offset(problem.key_steps), offset(problem.value_steps), int(y), int(x)};
  }
}

// Where the pixel under the centre of a footprint begins.
__device__ inline int64_t query_offset(const PairwiseAttention& problem, const Centre& centre) {
  const Footprint& footprint = problem.footprint;
  return centre.image * problem.query_steps.image + centre.row * footprint.rows.stride * problem.query_steps.row +
         centre.column * footprint.columns.stride * problem.query_steps.pixel;
}

// Features of the relation after the first norm and its ReLU, of all relations but the dot product: four channels of a
// pixel and all, or some, of its taps are a thread's at a time.
template <typename T, typename F>
__device__ void relate_channels(const PairwiseAttention& problem, const PairwiseAttentionOperands<T>& operands,
                                const Centre* centres, const Neighbour* neighbours, int pixels, int taps, F* features,
                                int stride) {
  using C = Compute<T>;
  const int quads = quads_of(problem.channels), items = pixels * quads, threads = int(blockDim.x);
  const int parts = items < threads ? threads / items : 1;  // of the taps
  const bool concatenates = problem.relation == Relation::kConcatenation;
  const int offset = concatenates ? problem.channels : 0;  // of what depends on the key
  for (int item = int(threadIdx.x); item < items * parts; item += threads) {
    const int channel = item % quads * 4, pixel = item / quads % pixels, count = least(4, problem.channels - channel);
    const Four<C> centre =
        load_channels(operands.query + query_offset(problem, centres[pixel]) + channel, count, operands.query_aligned);
    Four<C> factor = {}, summand = {}, constant = {};  // relu(factor * key + summand)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i >= count) continue;
      const C scale = operands.scale[channel + i], shift = operands.shift[channel + i];
      factor.of[i] = scale, summand.of[i] = shift;
      if (problem.relation == Relation::kSubtraction) factor.of[i] = -scale;
      if (problem.relation == Relation::kHadamard) {
        factor.of[i] *= centre.of[i];
      } else {
        summand.of[i] += scale * centre.of[i];
      }
      if (concatenates) {
        constant.of[i] = relu(summand.of[i]);
        factor.of[i] = operands.scale[offset + channel + i], summand.of[i] = operands.shift[offset + channel + i];
      }
    }
    const auto store = [&](const Four<C>& numbers, F* to, bool at_once) {
      if (at_once) return store_factors(numbers, to);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (i < count) round_to_factor(numbers.of[i], to[i]);
      }
    };
    for (int tap = item / items; tap < taps; tap += parts) {
      const int row = tap * pixels + pixel;
      F* const to = features + row * stride + channel;
      const int64_t from = neighbours[row].key;
      Four<C> result = {};
      if (from >= 0) result = load_channels(operands.key + from + channel, count, operands.key_aligned);
#pragma unroll
      for (int i = 0; i < 4; ++i) result.of[i] = relu(factor.of[i] * result.of[i] + summand.of[i]);
      if (concatenates) store(constant, to, count == 4);
      store(result, to + offset, count == 4 && offset % 4 == 0);
    }
  }
}

// A thread for a pair.
template <typename T, typename F>
__device__ void relate_by_dot(const PairwiseAttention& problem, const PairwiseAttentionOperands<T>& operands,
                              const Centre* centres, const Neighbour* neighbours, int pixels, int rows, F* features,
                              int stride) {
  using C = Compute<T>;
  for (int row = int(threadIdx.x); row < rows; row += int(blockDim.x)) {
    const T* const query = operands.query + query_offset(problem, centres[row % pixels]);
    const int64_t from = neighbours[row].key;
    C sum = 0;
    for (int channel = 0; from >= 0 && channel < problem.channels; channel += 4) {
      const int count = least(4, problem.channels - channel);
      const Four<C> here = load_channels(query + channel, count, operands.query_aligned);
      const Four<C> there = load_channels(operands.key + from + channel, count, operands.key_aligned);
#pragma unroll
      for (int i = 0; i < 4; ++i) sum += here.of[i] * there.of[i];
    }
    round_to_factor(relu(sum * operands.scale[0] + operands.shift[0]), features[row * stride]);
  }
}

// Places of pixels along an axis: from -1 to 1, or the centre of a map of `size` pixels at 0 and its ends at -1 and 1.
template <typename C>
__device__ C place(int64_t index, int64_t length, int64_t size) {
  if (size == 0 && length == 1) return C(-1);
  return (C(2 * index) - C(length - 1)) / C((size > 0 ? size : length) - 1);
}

// Features of the positions, behind those of the relation, and zeros up to `width`: a thread for a pair.
template <typename T, typename F>
__device__ void relate_positions(const PairwiseAttention& problem, const PairwiseAttentionOperands<T>& operands,
                                 const Centre* centres, const Neighbour* neighbours, int pixels, int rows, int width,
                                 F* features, int stride) {
  using C = Compute<T>;
  const Axis &down = problem.footprint.rows, &right = problem.footprint.columns;
  const int first = problem.relation_channels();
  for (int row = int(threadIdx.x); row < rows; row += int(blockDim.x)) {
    F* const to = features + row * stride;
    Four<C> positions = {};
    if (problem.positions > 0) {
      const Centre centre = centres[row % pixels];
      const Neighbour neighbour = neighbours[row];
      const C here_x = place<C>(centre.column * right.stride, right.size, problem.position_width);
      const C here_y = place<C>(centre.row * down.stride, down.size, problem.position_height);
      const C there_x = place<C>(neighbour.column, right.size, problem.position_width);
      const C there_y = place<C>(neighbour.row, down.size, problem.position_height);
#pragma unroll
      for (int i = 0; i < kPositionWidth; ++i) {
        if (i >= problem.positions) break;
        const C *const here = operands.query_position + 3 * i, *const there = operands.key_position + 3 * i;
        C position = here[0] * here_x + here[1] * here_y + here[2];
        if (neighbour.row >= 0) position += there[0] * there_x + there[1] * there_y + there[2];
        positions.of[i] = relu(operands.scale[first + i] * position + operands.shift[first + i]);
      }
    }
    if (first % 4 == 0) {
      for (int column = first; column < width; column += 4, positions = {}) store_factors(positions, to + column);
      continue;
    }
#pragma unroll
    for (int i = 0; i < kPositionWidth; ++i) {
      if (first + i < width) round_to_factor(positions.of[i], to[first + i]);
    }
    for (int column = first + kPositionWidth; column < width; ++column) round_to_factor(C(0), to[column]);
  }
}

}  // namespace sa_layers::cuda
