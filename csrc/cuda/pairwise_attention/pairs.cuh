// The pairs of output pixels and their taps in the general kernel: where they are, and their features after relation,
// position, norm and ReLU, one row of shared memory per pair.
#pragma once

#include <cstdint>

#include "cuda/common/element.cuh"
#include "cuda/common/factor.cuh"
#include "cuda/common/pack.cuh"
#include "cuda/pairwise_attention/plan.h"
#include "cuda/pairwise_attention/problem.h"
#include "footprint.h"

namespace sa_layers::cuda {

template <typename T>
struct PairwiseAttentionOperands {
  using C = Compute<T>;
  const T *query, *key, *value;
  const C *scale, *shift;
  const C *weights[kMappingLayers], *biases[kMappingLayers];
  const C *query_position, *key_position, *output_scale, *output_shift;
  T* output;
  bool query_aligned, key_aligned, value_aligned, output_aligned;  // in packs of four channels
};

// Whether the pixels of a map are aligned to packs of four channels.
template <typename T>
inline bool is_aligned(const void* map, const MapSteps& steps) {
  return reinterpret_cast<uintptr_t>(map) % sizeof(Pack<T, 4>) == 0 && steps.image % 4 == 0 && steps.row % 4 == 0 &&
         steps.pixel % 4 == 0;
}

// For a folded mapping.
template <typename T>
PairwiseAttentionOperands<T> operands_of(const PairwiseAttention& problem, const PairwiseAttentionTensors& tensors) {
  const auto numbers = [](const void* tensor) { return static_cast<const Compute<T>*>(tensor); };
  PairwiseAttentionOperands<T> operands = {};
  operands.query = static_cast<const T*>(tensors.query), operands.key = static_cast<const T*>(tensors.key);
  operands.value = static_cast<const T*>(tensors.value), operands.output = static_cast<T*>(tensors.output);
  operands.scale = numbers(tensors.scales[0]), operands.shift = numbers(tensors.shifts[0]);
  for (int layer = 0; layer < problem.layers; ++layer) {
    operands.weights[layer] = numbers(tensors.weights[layer].numbers);
    operands.biases[layer] = numbers(tensors.biases[layer].numbers);
  }
  operands.query_position = numbers(tensors.query_position), operands.key_position = numbers(tensors.key_position);
  operands.output_scale = numbers(tensors.output_scale), operands.output_shift = numbers(tensors.output_shift);
  operands.query_aligned = is_aligned<T>(tensors.query, problem.query_steps);
  operands.key_aligned = is_aligned<T>(tensors.key, problem.key_steps);
  operands.value_aligned = is_aligned<T>(tensors.value, problem.value_steps);
  operands.output_aligned = is_aligned<T>(tensors.output, {0, 0, problem.value_channels});
  return operands;
}

// Lists the output pixels of a block.
__device__ inline void find_centres(const PairwiseAttention& problem, int64_t first, int pixels, Centre* centres) {
  const int64_t in_image = problem.footprint.output_pixels(), width = problem.footprint.columns.output_size();
  for (int pixel = int(threadIdx.x); pixel < pixels; pixel += int(blockDim.x)) {
    const int64_t place = (first + pixel) % in_image;
    centres[pixel] = {(first + pixel) / in_image, int(place / width), int(place % width)};
  }
}

// Lists the neighbours that the rows of a round read: of all pixels at its first tap, then at the next.
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

// The offset of the query's pixel at the centre of a footprint.
__device__ inline int64_t query_offset(const PairwiseAttention& problem, const Centre& centre) {
  const Footprint& footprint = problem.footprint;
  return centre.image * problem.query_steps.image + centre.row * footprint.rows.stride * problem.query_steps.row +
         centre.column * footprint.columns.stride * problem.query_steps.pixel;
}

// Features of every relation but 'dot', after the first norm and its ReLU: a thread computes four channels of a pixel
// for all, or some, of its taps.
template <typename T, typename F>
__device__ void relate_channels(const PairwiseAttention& problem, const PairwiseAttentionOperands<T>& operands,
                                const Centre* centres, const Neighbour* neighbours, int pixels, int taps, F* features,
                                int stride) {
  using C = Compute<T>;
  const int packs = packs_of(problem.channels), items = pixels * packs, threads = int(blockDim.x);
  const int parts = items < threads ? threads / items : 1;  // the taps are split if there are too few items
  const bool concatenates = problem.relation == Relation::kConcatenation;
  const int offset = concatenates ? problem.channels : 0;  // of the features that depend on the key
  for (int item = int(threadIdx.x); item < items * parts; item += threads) {
    const int channel = item % packs * 4, pixel = item / packs % pixels, count = min(4, problem.channels - channel);
    const Pack<C, 4> centre =
        load_channels(operands.query + query_offset(problem, centres[pixel]) + channel, count, operands.query_aligned);
    Pack<C, 4> factor = {}, summand = {}, constant = {};  // relu(factor * key + summand)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i >= count) continue;
      const C scale = operands.scale[channel + i], shift = operands.shift[channel + i];
      factor[i] = scale, summand[i] = shift;
      if (problem.relation == Relation::kSubtraction) factor[i] = -scale;
      if (problem.relation == Relation::kHadamard) {
        factor[i] *= centre[i];
      } else {
        summand[i] += scale * centre[i];
      }
      if (concatenates) {
        constant[i] = relu(summand[i]);
        factor[i] = operands.scale[offset + channel + i], summand[i] = operands.shift[offset + channel + i];
      }
    }
    const auto store = [&](const Pack<C, 4>& numbers, F* to, bool at_once) {
      if (at_once) return store_factors(numbers, to);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (i < count) round_to_factor(numbers[i], to[i]);
      }
    };
    for (int tap = item / items; tap < taps; tap += parts) {
      const int row = tap * pixels + pixel;
      F* const to = features + row * stride + channel;
      const int64_t from = neighbours[row].key;
      Pack<C, 4> result = {};
      if (from >= 0) result = load_channels(operands.key + from + channel, count, operands.key_aligned);
#pragma unroll
      for (int i = 0; i < 4; ++i) result[i] = relu(factor[i] * result[i] + summand[i]);
      if (concatenates) store(constant, to, count == 4);
      store(result, to + offset, count == 4 && offset % 4 == 0);
    }
  }
}

// The relation 'dot': one thread per pair.
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
      const int count = min(4, problem.channels - channel);
      const Pack<C, 4> here = load_channels(query + channel, count, operands.query_aligned);
      const Pack<C, 4> there = load_channels(operands.key + from + channel, count, operands.key_aligned);
#pragma unroll
      for (int i = 0; i < 4; ++i) sum += here[i] * there[i];
    }
    round_to_factor(relu(sum * operands.scale[0] + operands.shift[0]), features[row * stride]);
  }
}

// The coordinate of a pixel along an axis of `length` pixels: from -1 to 1, or, if `size` is not 0, such that `size`
// pixels with the same centre span -1 to 1.
template <typename C>
__device__ C coordinate_of(int64_t index, int64_t length, int64_t size) {
  if (size == 0 && length == 1) return C(-1);
  return (C(2 * index) - C(length - 1)) / C((size > 0 ? size : length) - 1);
}

// Position features, after those of the relation, then zeros up to `width`: one thread per pair.
template <typename T, typename F>
__device__ void relate_positions(const PairwiseAttention& problem, const PairwiseAttentionOperands<T>& operands,
                                 const Centre* centres, const Neighbour* neighbours, int pixels, int rows, int width,
                                 F* features, int stride) {
  using C = Compute<T>;
  const Axis &down = problem.footprint.rows, &right = problem.footprint.columns;
  const int first = problem.relation_channels();
  for (int row = int(threadIdx.x); row < rows; row += int(blockDim.x)) {
    F* const to = features + row * stride;
    Pack<C, 4> positions = {};
    if (problem.positions > 0) {
      const Centre centre = centres[row % pixels];
      const Neighbour neighbour = neighbours[row];
      const C here_x = coordinate_of<C>(centre.column * right.stride, right.size, problem.position_width);
      const C here_y = coordinate_of<C>(centre.row * down.stride, down.size, problem.position_height);
      const C there_x = coordinate_of<C>(neighbour.column, right.size, problem.position_width);
      const C there_y = coordinate_of<C>(neighbour.row, down.size, problem.position_height);
#pragma unroll
      for (int i = 0; i < kPositionWidth; ++i) {
        if (i >= problem.positions) break;
        const C *const here = operands.query_position + 3 * i, *const there = operands.key_position + 3 * i;
        C position = here[0] * here_x + here[1] * here_y + here[2];
        if (neighbour.row >= 0) position += there[0] * there_x + there[1] * there_y + there[2];
        positions[i] = relu(operands.scale[first + i] * position + operands.shift[first + i]);
      }
    }
    if (first % 4 == 0) {
      for (int column = first; column < width; column += 4, positions = {}) store_factors(positions, to + column);
      continue;
    }
#pragma unroll
    for (int i = 0; i < kPositionWidth; ++i) {
      if (first + i < width) round_to_factor(positions[i], to[first + i]);
    }
    for (int column = first + kPositionWidth; column < width; ++column) round_to_factor(C(0), to[column]);
  }
}

}  // namespace sa_layers::cuda
