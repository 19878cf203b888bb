// Pairwise attention of any widths in one pass. A block has some output pixels and loops over their taps, a few at a
// time: it relates pixels and taps, maps the features layer by layer, and accumulates values with an online softmax.
// Nothing that has taps leaves shared memory. Keys and values come through the cache: a key is read once for as many
// products as the first layer has outputs, and consecutive pixels read nearly the same ones.
#pragma once

#include <cstdint>

#include "cuda/common/block_sizes.h"
#include "cuda/common/element.cuh"
#include "cuda/common/factor.cuh"
#include "cuda/common/pack.cuh"
#include "cuda/common/shared_memory.cuh"
#include "cuda/common/tensor_tiles.cuh"
#include "cuda/pairwise_attention/multiply_adds.cuh"
#include "cuda/pairwise_attention/pairs.cuh"
#include "cuda/pairwise_attention/plan.h"
#include "cuda/pairwise_attention/problem.h"
#include "footprint.h"

namespace sa_layers::cuda {

// Online softmax: turns the logits of a round into weights relative to the maximum so far and updates their running
// total. `correction` rescales what was accumulated before the round. Logits are increased by a constant, `offset`,
// only for the maximum: with the logarithm of the number of all taps, weighted sums overflow no sooner than an average.
template <typename C>
__device__ void run_softmax(C* logits, int stride, int width, int pixels, int taps, C offset, bool begin, C* maximum,
                            C* total, C* correction) {
  for (int item = int(threadIdx.x); item < pixels * width; item += int(blockDim.x)) {
    const int pixel = item / width, step = pixels * stride;
    C* const first = logits + pixel * stride + item % width;
    const C before = begin ? C(-INFINITY) : maximum[item];
    C now = before, sum = 0;
    for (int tap = 0; tap < taps; ++tap) {
      const C logit = first[tap * step] + offset;
      now = logit > now ? logit : now;
    }
    const C origin = now == C(-INFINITY) ? C(0) : now;  // a difference of infinities would be NaN
    for (int tap = 0; tap < taps; ++tap) {
      const C weight = exponential(first[tap * step] - origin);
      first[tap * step] = weight;
      sum += weight;
    }
    const C factor = exponential(before - origin);
    maximum[item] = now, correction[item] = factor, total[item] = begin ? sum : total[item] * factor + sum;
  }
}

// Four channels of an output pixel, whose sums a thread keeps in registers, and the weights that they use.
struct Output {
  int pixel, channel, count;  // count is 0 for an idle thread
  int weights[4];
  bool contiguous;

  __device__ Output(const PairwiseAttention& problem, const PairwiseAttentionPlan& plan, int index, int pixels) {
    const int item = int(threadIdx.x) + index * int(blockDim.x), packs = packs_of(problem.value_channels);
    pixel = item / packs, channel = item % packs * 4;
    count = pixel < pixels ? min(4, problem.value_channels - channel) : 0;
    contiguous = plan.logits % 4 == 0;
    weights[0] = channel % plan.logits;
#pragma unroll
    for (int i = 1; i < 4; ++i) weights[i] = weights[i - 1] + 1 == plan.logits ? 0 : weights[i - 1] + 1;
  }
  template <typename C>
  __device__ Pack<C, 4> load(const C* from) const {
    if (contiguous) return load_pack<4>(from + weights[0]);
    return {from[weights[0]], from[weights[1]], from[weights[2]], from[weights[3]]};
  }
};

template <typename T>
__device__ void aggregate(const PairwiseAttention& problem, const PairwiseAttentionPlan& plan,
                          const PairwiseAttentionOperands<T>& operands, const Neighbour* neighbours, int pixels,
                          int taps, const Compute<T>* weights, int stride, const Compute<T>* correction,
                          Pack<Compute<T>, 4> (&sums)[kAttentionPacks]) {
  using C = Compute<T>;
#pragma unroll
  for (int j = 0; j < kAttentionPacks; ++j) {
    const Output output(problem, plan, j, pixels);
    if (output.count == 0) continue;
    const Pack<C, 4> factor = output.load(correction + output.pixel * plan.logits);
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[j][i] *= factor[i];
#pragma unroll 4
    for (int tap = 0; tap < taps; ++tap) {
      const int row = tap * pixels + output.pixel;
      const int64_t from = neighbours[row].value;
      if (from < 0) continue;
      const Pack<C, 4> weight = output.load(weights + row * stride);
      const Pack<C, 4> value =
          load_channels(operands.value + from + output.channel, output.count, operands.value_aligned);
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[j][i] += weight[i] * value[i];
    }
  }
}

template <typename T>
__device__ void finish(const PairwiseAttention& problem, const PairwiseAttentionPlan& plan,
                       const PairwiseAttentionOperands<T>& operands, int64_t first, int pixels, const Compute<T>* total,
                       const Pack<Compute<T>, 4> (&sums)[kAttentionPacks]) {
  using C = Compute<T>;
#pragma unroll
  for (int j = 0; j < kAttentionPacks; ++j) {
    const Output output(problem, plan, j, pixels);
    if (output.count == 0) continue;
    const Pack<C, 4> totals = output.load(total + output.pixel * plan.logits);
    T* const to = operands.output + (first + output.pixel) * problem.value_channels + output.channel;
    Pack<C, 4> results;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      results[i] = sums[j][i] / totals[i];
      if (operands.output_scale && i < output.count) {
        const int channel = output.channel + i;
        results[i] = relu(results[i] * operands.output_scale[channel] + operands.output_shift[channel]);
      }
    }
    store_channels(results, output.count, operands.output_aligned, to);
  }
}

// The work of a block, with the mapping's products on tensor cores or by multiply-adds.
template <bool kTensorCores, typename T>
__device__ void attend(const PairwiseAttention& problem, const PairwiseAttentionPlan& plan,
                       const PairwiseAttentionOperands<T>& operands) {
  using C = Compute<T>;
  using F = Factor<T, kTensorCores>;
  char* const memory = reinterpret_cast<char*>(shared_memory());
  const auto numbers = [&](int offset) { return reinterpret_cast<C*>(memory + offset); };
  const auto factors = [&](int offset) { return reinterpret_cast<F*>(memory + offset); };
  Centre* const centres = reinterpret_cast<Centre*>(memory + plan.centres);
  Neighbour* const neighbours = reinterpret_cast<Neighbour*>(memory + plan.neighbours);
  C *const maximum = numbers(plan.maximum), *const total = numbers(plan.total);
  C* const correction = numbers(plan.correction);
  const int64_t first_pixel = int64_t(blockIdx.x) * plan.pixels, pixels_left = problem.output_pixels() - first_pixel;
  const int pixels = pixels_left < plan.pixels ? int(pixels_left) : plan.pixels;
  const int all_taps = int(problem.footprint.taps());
  const auto repeats = [&](int layer) { return layer + 1 == problem.layers; };
  const auto copy_slice = [&](int layer, int first, int columns) {
    const auto copy = [&](const auto& copy_to) {
      copy_to(operands.weights[layer], problem.weight_steps[layer], problem.widths[layer], problem.widths[layer + 1],
              repeats(layer), plan.widths[layer], first, columns, factors(plan.weights[layer]),
              plan.strides_of_weights[layer]);
    };
    if constexpr (kTensorCores) {
      copy(copy_weight_rows<F>);
    } else {
      copy(copy_weight<C>);
    }
  };
  // The rows before a layer. (An index of run time would take a register.)
  const auto features_of = [&](int layer) { return layer % 2 ? plan.features[1] : plan.features[0]; };
  const auto multiply_slice = [&](int layer, int rows, int first, int columns) {
    const F *const features = factors(features_of(layer)), *const weight = factors(plan.weights[layer]);
    const int to = features_of(layer + 1), stride = plan.strides[layer], to_stride = plan.strides[layer + 1];
    const int inputs = plan.widths[layer], outputs = problem.widths[layer + 1];
    const C* const bias = operands.biases[layer];
    if constexpr (kTensorCores) {
      const LayerOutput<F> output = {repeats(layer) ? nullptr : factors(to), numbers(to), to_stride};
      multiply_on_tensor_cores(features, stride, rows, inputs, weight, bias, outputs, repeats(layer), first, columns,
                               output);
    } else {
      multiply(features, stride, rows, inputs, weight, plan.strides_of_weights[layer], bias, outputs, repeats(layer),
               !repeats(layer), first, columns, numbers(to), to_stride);
    }
  };

  const C offset = C(0.6931471805599453) * C(ceil_log2(all_taps));
  find_centres(problem, first_pixel, pixels, centres);
  for (int layer = 0; plan.resident && layer < problem.layers; ++layer) copy_slice(layer, 0, plan.columns[layer]);
  Pack<C, 4> sums[kAttentionPacks] = {};
  for (int first_tap = 0; first_tap < all_taps; first_tap += plan.taps) {
    const int taps = min(plan.taps, all_taps - first_tap), rows = pixels * taps;
    __syncthreads();  // the centres are written; the last round's neighbours and logits are read
    find_neighbours(problem, centres, pixels, first_tap, rows, neighbours);
    __syncthreads();
    F* const features = factors(plan.features[0]);
    if (problem.relation == Relation::kDot) {
      relate_by_dot(problem, operands, centres, neighbours, pixels, rows, features, plan.strides[0]);
    } else {
      relate_channels(problem, operands, centres, neighbours, pixels, taps, features, plan.strides[0]);
    }
    relate_positions(problem, operands, centres, neighbours, pixels, rows, plan.widths[0], features, plan.strides[0]);
    for (int layer = 0; layer < problem.layers; ++layer) {
      const int width = plan.widths[layer + 1];
      for (int first = 0; first < width; first += plan.columns[layer]) {
        const int columns = min(plan.columns[layer], width - first);
        if (!plan.resident) {
          __syncthreads();  // the previous slice has been used
          copy_slice(layer, first, columns);
        }
        __syncthreads();
        multiply_slice(layer, rows, first, columns);
      }
    }
    __syncthreads();
    C* const logits = numbers(features_of(problem.layers));
    const int stride = plan.strides[problem.layers];
    run_softmax(logits, stride, plan.logits, pixels, taps, offset, first_tap == 0, maximum, total, correction);
    __syncthreads();
    aggregate(problem, plan, operands, neighbours, pixels, taps, logits, stride, correction, sums);
  }
  finish(problem, plan, operands, first_pixel, pixels, total, sums);
}

template <typename T, bool kTensorCores>
__global__ void __launch_bounds__(kAttentionThreads, sizeof(Compute<T>) == 4 ? 2 : 1)
    pairwise_attention_tiles(const __grid_constant__ PairwiseAttention problem,
                             const __grid_constant__ PairwiseAttentionPlan plan,
                             const __grid_constant__ PairwiseAttentionOperands<T> operands) {
  // Empty for architectures without such tensor cores, where select.cu does not launch it.
  if constexpr (!kTensorCores || has_tensor_cores<Factor<T, kTensorCores>>()) {
    attend<kTensorCores>(problem, plan, operands);
  }
}

}  // namespace sa_layers::cuda
