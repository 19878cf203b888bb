// What pairwise attention adds up: values of the taps times their weights, in registers, and what follows the sums.
#pragma once

#include "cuda/pairs.cuh"

namespace sa_layers::cuda {

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
    Four<C> results;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      results.of[i] = sums[j].of[i] / totals.of[i];
      if (operands.output_scale && i < output.count) {
        const int channel = output.channel + i;
        results.of[i] = relu(results.of[i] * operands.output_scale[channel] + operands.output_shift[channel]);
      }
    }
    store_channels(results, output.count, operands.output_aligned, to);
  }
}

}  // namespace sa_layers::cuda
