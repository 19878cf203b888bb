// The sums of the values of footprints, four channels of an output pixel at a time, and what follows them.
#pragma once

#include "cuda/patchwise_features.cuh"

namespace sa_layers::cuda {

// Four channels of an output pixel, whose sums a thread keeps in registers, and the first of their weights in a slice.
struct OutputQuad {
  int pixel, channel, count, weight;  // count 0 for a thread without

  // The one numbered `index` of a thread's, in a slice that begins at the weight `first`.
  __device__ void find(const PatchwiseAttention& problem, const PatchwiseAttentionPlan& plan, int index, int first,
                       int pixels) {
    const int item = int(threadIdx.x) + index * int(blockDim.x), quads = plan.slice / 4;
    weight = item % quads * 4, pixel = item / (quads * plan.shares);
    const int of_tap = first + weight;  // the channel's weight
    channel = item / quads % plan.shares * plan.weights + of_tap;
    count = least(4, least(plan.weights - of_tap, problem.value_channels - channel));
    if (pixel >= pixels || count < 0) count = 0;
  }
};

// Adds the values at the taps of a round, from the one numbered `tap` on, times their weights.
template <typename T>
__device__ void add_values(const PatchwiseAttention& problem, const PatchwiseAttentionPlan& plan,
                           const PatchwiseAttentionOperands<T>& operands, const OutputQuad& output, const int* sources,
                           const Compute<T>* weights, int tap, int taps, Four<Compute<T>>& sums) {
  const int* const of_taps = sources + output.pixel * plan.sources_step + 1 + tap;
  const Compute<T>* const of_pixel = weights + output.pixel * plan.weights_stride + output.weight;
#pragma unroll 4
  for (int i = 0; i < taps; ++i) {
    const int source = of_taps[i];
    if (source < 0) continue;
    const T* const from = operands.value + source * problem.value_step + output.channel;
    const Four<Compute<T>> value = load_channels(from, output.count, operands.value_aligned);
    const Four<Compute<T>> weight = load_four(of_pixel + i * plan.slice);
#pragma unroll
    for (int c = 0; c < 4; ++c) sums.of[c] += weight.of[c] * value.of[c];
  }
}

template <typename T>
__device__ void write_output(const PatchwiseAttention& problem, const PatchwiseAttentionOperands<T>& operands,
                             const OutputQuad& output, int64_t first_pixel, Four<Compute<T>> sums) {
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    if (!operands.output_scale || c >= output.count) break;
    const int channel = output.channel + c;
    sums.of[c] = relu(sums.of[c] * operands.output_scale[channel] + operands.output_shift[channel]);
  }
  T* const to = operands.output + (first_pixel + output.pixel) * problem.value_channels + output.channel;
  store_channels(sums, output.count, operands.output_aligned, to);
}

}  // namespace sa_layers::cuda
