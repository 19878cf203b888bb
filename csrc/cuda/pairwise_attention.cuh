// Pairwise attention in one pass. A block has some output pixels and goes through their taps, a few at a time: it
// relates the pairs of pixels and taps, maps their features layer by layer, and adds up values with a running softmax.
// What has taps never leaves shared memory. Keys and values come through the cache: a key is read once for as many
// products as the first layer has outputs, and pixels that follow each other read nearly the same ones.
#pragma once

#include "cuda/element.cuh"
#include "cuda/pairwise_attention_plan.h"
#include "cuda/shared_memory.cuh"

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

// Four numbers of shared memory, which has the alignment of one instruction.
template <typename C>
struct alignas(16) Four {
  C of[4];
};

template <typename C>
__device__ Four<C> load_four(const C* from) {
  return *reinterpret_cast<const Four<C>*>(from);
}

template <typename C>
__device__ void store_four(const Four<C>& numbers, C* to) {
  *reinterpret_cast<Four<C>*>(to) = numbers;
}

// `count` of four channels of a map, the others 0.
template <typename T>
__device__ Four<Compute<T>> load_channels(const T* from, int count, bool aligned) {
  Four<Compute<T>> channels;
  if (aligned && count == 4) {
    const Quad<T> quad = *reinterpret_cast<const Quad<T>*>(from);
#pragma unroll
    for (int i = 0; i < 4; ++i) channels.of[i] = widen(quad.elements[i]);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) channels.of[i] = i < count ? widen(from[i]) : Compute<T>(0);
  }
  return channels;
}

__device__ inline int least(int a, int b) { return a < b ? a : b; }

// A NaN stays one, as in torch's ReLU.
template <typename C>
__device__ C relu(C number) {
  return number < 0 ? C(0) : number;
}

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
template <typename T>
__device__ void relate_channels(const PairwiseAttention& problem, const PairwiseAttentionOperands<T>& operands,
                                const Centre* centres, const Neighbour* neighbours, int pixels, int taps,
                                Compute<T>* features, int stride) {
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
    const auto store = [&](const Four<C>& numbers, C* to, bool at_once) {
      if (at_once) return store_four(numbers, to);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (i < count) to[i] = numbers.of[i];
      }
    };
    for (int tap = item / items; tap < taps; tap += parts) {
      const int row = tap * pixels + pixel;
      C* const to = features + row * stride + channel;
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
template <typename T>
__device__ void relate_by_dot(const PairwiseAttention& problem, const PairwiseAttentionOperands<T>& operands,
                              const Centre* centres, const Neighbour* neighbours, int pixels, int rows,
                              Compute<T>* features, int stride) {
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
    features[row * stride] = relu(sum * operands.scale[0] + operands.shift[0]);
  }
}

// Places of pixels along an axis: from -1 to 1, or the centre of a map of `size` pixels at 0 and its ends at -1 and 1.
template <typename C>
__device__ C place(int64_t index, int64_t length, int64_t size) {
  if (size == 0 && length == 1) return C(-1);
  return (C(2 * index) - C(length - 1)) / C((size > 0 ? size : length) - 1);
}

// Features of the positions, behind those of the relation, and zeros up to the next four: a thread for a pair.
template <typename T>
__device__ void relate_positions(const PairwiseAttention& problem, const PairwiseAttentionOperands<T>& operands,
                                 const Centre* centres, const Neighbour* neighbours, int pixels, int rows, int width,
                                 Compute<T>* features, int stride) {
  using C = Compute<T>;
  const Axis &down = problem.footprint.rows, &right = problem.footprint.columns;
  const int first = problem.relation_channels();
  for (int row = int(threadIdx.x); row < rows; row += int(blockDim.x)) {
    C* const to = features + row * stride;
    if (problem.positions > 0) {
      const Centre centre = centres[row % pixels];
      const Neighbour neighbour = neighbours[row];
      const C here_x = place<C>(centre.column * right.stride, right.size, problem.position_width);
      const C here_y = place<C>(centre.row * down.stride, down.size, problem.position_height);
      const C there_x = place<C>(neighbour.column, right.size, problem.position_width);
      const C there_y = place<C>(neighbour.row, down.size, problem.position_height);
      for (int i = 0; i < problem.positions; ++i) {
        const C *const here = operands.query_position + 3 * i, *const there = operands.key_position + 3 * i;
        C position = here[0] * here_x + here[1] * here_y + here[2];
        if (neighbour.row >= 0) position += there[0] * there_x + there[1] * there_y + there[2];
        to[first + i] = relu(operands.scale[first + i] * position + operands.shift[first + i]);
      }
    }
    for (int column = first + problem.positions; column < width; ++column) to[column] = 0;
  }
}

// Copies `columns` of a layer's outputs from the one numbered `first`: (output, input) becomes [input][output], filled
// up with zeros; outputs beyond the last one begin anew. Neighbouring threads read eight inputs of an output, which lie
// side by side in memory, and write to different banks.
template <typename C>
__device__ void copy_weight(const C* weight, const WeightSteps& steps, int inputs, int outputs, bool repeat,
                            int padded_inputs, int first, int columns, C* to, int stride) {
  const int input_blocks = (padded_inputs + 7) / 8, size = 32 * input_blocks * (columns / 4);
  for (int index = int(threadIdx.x); index < size; index += int(blockDim.x)) {
    const int block = index / 32, lane = index % 32;
    const int input = block % input_blocks * 8 + lane % 8, column = block / input_blocks * 4 + lane / 8;
    if (input >= padded_inputs) continue;
    const int output = repeat ? (first + column) % outputs : first + column;
    to[input * stride + column] =
        input < inputs && output < outputs ? weight[output * steps.output + input * steps.input] : C(0);
  }
}

// `columns` outputs of a layer from the one numbered `first`, of all rows, from weights as copy_weight leaves them. A
// thread computes four outputs of some rows at a time; the last of them may be the same row again.
template <typename C>
__device__ void multiply(const C* features, int stride, int rows, int inputs, const C* weight, int weight_stride,
                         const C* bias, int outputs, bool repeat, bool rectify, int first, int columns, C* result,
                         int result_stride) {
  constexpr int kRows = tile_rows(sizeof(C));
  const int groups = (rows + kRows - 1) / kRows, quads = columns / 4;
  for (int tile = int(threadIdx.x); tile < groups * quads; tile += int(blockDim.x)) {
    const int column = tile % quads * 4, group = tile / quads;  // rows group, group + groups, ...
    int from[kRows];
    Four<C> sums[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) from[r] = least(group + r * groups, rows - 1) * stride;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int output = repeat ? (first + column + i) % outputs : first + column + i;
      const C constant = output < outputs ? bias[output] : C(0);
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[r].of[i] = constant;
    }
#pragma unroll 1
    for (int input = 0; input < inputs; input += 4) {
      Four<C> weights[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) weights[k] = load_four(weight + (input + k) * weight_stride + column);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const Four<C> row = load_four(features + from[r] + input);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
#pragma unroll
          for (int i = 0; i < 4; ++i) sums[r].of[i] += row.of[k] * weights[k].of[i];
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int row = group + r * groups;
      if (row >= rows) break;
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[r].of[i] = rectify ? relu(sums[r].of[i]) : sums[r].of[i];
      store_four(sums[r], result + row * result_stride + first + column);
    }
  }
}

// Turns the logits of a round into weights relative to the greatest logit so far, of which there is a running total;
// `correction` is what takes everything before this round to that scale.
template <typename C>
__device__ void run_softmax(C* logits, int stride, int width, int pixels, int taps, bool begin, C* greatest, C* total,
                            C* correction) {
  for (int item = int(threadIdx.x); item < pixels * width; item += int(blockDim.x)) {
    const int pixel = item / width, step = pixels * stride;
    C* const first = logits + pixel * stride + item % width;
    const C before = begin ? C(-INFINITY) : greatest[item];
    C now = before, sum = 0;
    for (int tap = 0; tap < taps; ++tap) now = first[tap * step] > now ? first[tap * step] : now;
    const C origin = now == C(-INFINITY) ? C(0) : now;  // or a difference of infinities would be NaN
    for (int tap = 0; tap < taps; ++tap) {
      const C weight = exponential(first[tap * step] - origin);
      first[tap * step] = weight;
      sum += weight;
    }
    const C factor = exponential(before - origin);
    greatest[item] = now, correction[item] = factor, total[item] = begin ? sum : total[item] * factor + sum;
  }
}

// Four channels of an output pixel, whose sums a thread keeps in registers, and the weights that they use.
struct Output {
  int pixel, channel, count;  // 0 for a thread without
  int weights[4];
  bool side_by_side;

  __device__ Output(const PairwiseAttention& problem, const PairwiseAttentionPlan& plan, int index, int pixels) {
    const int item = int(threadIdx.x) + index * int(blockDim.x), quads = quads_of(problem.value_channels);
    pixel = item / quads, channel = item % quads * 4;
    count = pixel < pixels ? least(4, problem.value_channels - channel) : 0;
    side_by_side = plan.logits % 4 == 0;
    weights[0] = channel % plan.logits;
#pragma unroll
    for (int i = 1; i < 4; ++i) weights[i] = weights[i - 1] + 1 == plan.logits ? 0 : weights[i - 1] + 1;
  }
  template <typename C>
  __device__ Four<C> load(const C* from) const {
    if (side_by_side) return load_four(from + weights[0]);
    return {from[weights[0]], from[weights[1]], from[weights[2]], from[weights[3]]};
  }
};

template <typename T>
__device__ void aggregate(const PairwiseAttention& problem, const PairwiseAttentionPlan& plan,
                          const PairwiseAttentionOperands<T>& operands, const Neighbour* neighbours, int pixels,
                          int taps, const Compute<T>* weights, int stride, const Compute<T>* correction,
                          Four<Compute<T>> (&sums)[kAttentionQuads]) {
  using C = Compute<T>;
#pragma unroll
  for (int j = 0; j < kAttentionQuads; ++j) {
    const Output output(problem, plan, j, pixels);
    if (output.count == 0) continue;
    const Four<C> factor = output.load(correction + output.pixel * plan.logits);
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[j].of[i] *= factor.of[i];
#pragma unroll 4
    for (int tap = 0; tap < taps; ++tap) {
      const int row = tap * pixels + output.pixel;
      const int64_t from = neighbours[row].value;
      if (from < 0) continue;
      const Four<C> weight = output.load(weights + row * stride);
      const Four<C> value = load_channels(operands.value + from + output.channel, output.count, operands.value_aligned);
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[j].of[i] += weight.of[i] * value.of[i];
    }
  }
}

template <typename T>
__device__ void finish(const PairwiseAttention& problem, const PairwiseAttentionPlan& plan,
                       const PairwiseAttentionOperands<T>& operands, int64_t first, int pixels, const Compute<T>* total,
                       const Four<Compute<T>> (&sums)[kAttentionQuads]) {
  using C = Compute<T>;
#pragma unroll
  for (int j = 0; j < kAttentionQuads; ++j) {
    const Output output(problem, plan, j, pixels);
    if (output.count == 0) continue;
    const Four<C> totals = output.load(total + output.pixel * plan.logits);
    T* const to = operands.output + (first + output.pixel) * problem.value_channels + output.channel;
    Quad<T> quad;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      C result = sums[j].of[i] / totals.of[i];
      if (operands.output_scale && i < output.count) {
        result = relu(result * operands.output_scale[output.channel + i] + operands.output_shift[output.channel + i]);
      }
      narrow(result, quad.elements[i]);
    }
    if (operands.output_aligned && output.count == 4) {
      *reinterpret_cast<Quad<T>*>(to) = quad;
      continue;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i < output.count) to[i] = quad.elements[i];
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kAttentionThreads, sizeof(Compute<T>) == 4 ? 2 : 1)
    pairwise_attention_tiles(const __grid_constant__ PairwiseAttention problem,
                             const __grid_constant__ PairwiseAttentionPlan plan,
                             const __grid_constant__ PairwiseAttentionOperands<T> operands) {
  using C = Compute<T>;
  char* const memory = reinterpret_cast<char*>(shared_memory());
  const auto numbers = [&](int offset) { return reinterpret_cast<C*>(memory + offset); };
  Centre* const centres = reinterpret_cast<Centre*>(memory + plan.centres);
  Neighbour* const neighbours = reinterpret_cast<Neighbour*>(memory + plan.neighbours);
  C *const greatest = numbers(plan.greatest), *const total = numbers(plan.total);
  C* const correction = numbers(plan.correction);
  const int64_t first_pixel = int64_t(blockIdx.x) * plan.pixels, pixels_left = problem.output_pixels() - first_pixel;
  const int pixels = pixels_left < plan.pixels ? int(pixels_left) : plan.pixels;
  const int all_taps = int(problem.footprint.taps());
  const auto repeats = [&](int layer) { return layer + 1 == problem.layers; };
  const auto copy_slice = [&](int layer, int first, int columns) {
    copy_weight(operands.weights[layer], problem.weight_steps[layer], problem.widths[layer], problem.widths[layer + 1],
                repeats(layer), plan.widths[layer], first, columns, numbers(plan.weights[layer]),
                plan.strides_of_weights[layer]);
  };

  find_centres(problem, first_pixel, pixels, centres);
  for (int layer = 0; plan.resident && layer < problem.layers; ++layer) copy_slice(layer, 0, plan.columns[layer]);
  Four<C> sums[kAttentionQuads] = {};
  for (int first_tap = 0; first_tap < all_taps; first_tap += plan.taps) {
    const int taps = least(plan.taps, all_taps - first_tap), rows = pixels * taps;
    __syncthreads();  // the centres are there, the last round's neighbours and logits not needed any more
    find_neighbours(problem, centres, pixels, first_tap, rows, neighbours);
    __syncthreads();
    C *features = numbers(plan.features[0]), *others = numbers(plan.features[1]);
    if (problem.relation == Relation::kDot) {
      relate_by_dot(problem, operands, centres, neighbours, pixels, rows, features, plan.strides[0]);
    } else {
      relate_channels(problem, operands, centres, neighbours, pixels, taps, features, plan.strides[0]);
    }
    relate_positions(problem, operands, centres, neighbours, pixels, rows, plan.widths[0], features, plan.strides[0]);
    for (int layer = 0; layer < problem.layers; ++layer) {
      const int width = plan.widths[layer + 1];
      for (int first = 0; first < width; first += plan.columns[layer]) {
        const int columns = least(plan.columns[layer], width - first);
        if (!plan.resident) {
          __syncthreads();  // the slice before is not needed any more
          copy_slice(layer, first, columns);
        }
        __syncthreads();
        multiply(features, plan.strides[layer], rows, plan.widths[layer], numbers(plan.weights[layer]),
                 plan.strides_of_weights[layer], operands.biases[layer], problem.widths[layer + 1], repeats(layer),
                 layer + 1 < problem.layers, first, columns, others, plan.strides[layer + 1]);
      }
      C* const results = others;
      others = features, features = results;
    }
    __syncthreads();
    run_softmax(features, plan.strides[problem.layers], plan.logits, pixels, taps, first_tap == 0, greatest, total,
                correction);
    __syncthreads();
    aggregate(problem, plan, operands, neighbours, pixels, taps, features, plan.strides[problem.layers], correction,
              sums);
  }
  finish(problem, plan, operands, first_pixel, pixels, total, sums);
}

}  // namespace sa_layers::cuda
