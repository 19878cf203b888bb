// The sums of the values of footprints, four channels of an output pixel at a time, and what follows them.
#pragma once

#include "cuda/patchwise_features.cuh"

namespace sa_layers::cuda {

// Four channels of an output pixel, whose sums a thread keeps in registers, and the first of their weights in a slice.
// One register, or those of a thread would not leave room for its sums.
struct OutputQuad {
  unsigned pixel : 6, channel : 12, weight_quad : 7, count : 3;  // count 0 for a thread without
  static_assert(kPatchwisePixels <= 1 << 6 && kPatchwiseValues <= 1 << 12 && kPatchwiseWeights <= 4 << 7);

  // The one numbered `index` of a thread's, in a slice that begins at the weight `first`.
  __device__ void find(const PatchwiseAttention& problem, const PatchwiseAttentionPlan& plan, int index, int first,
                       int pixels) {
    const int item = int(threadIdx.x) + index * int(blockDim.x), quads = plan.slice / 4;
    const int quad = item % quads, of_pixel = item / (quads * plan.shares);
    const int of_tap = first + 4 * quad;  // the channel's weight
    const int of_value = item / quads % plan.shares * plan.weights + of_tap;
    const int left = least(plan.weights - of_tap, problem.value_channels - of_value);
    *this = {};
    if (of_pixel >= pixels || left <= 0) return;
    pixel = unsigned(of_pixel), channel = unsigned(of_value), weight_quad = unsigned(quad);
    count = unsigned(least(4, left));
  }
  __device__ int weight() const { return 4 * int(weight_quad); }
};

// Adds the values at the taps of a round, from the one numbered `tap` on, times their weights.
template <typename T>
__device__ void add_values(const PatchwiseAttention& problem, const PatchwiseAttentionPlan& plan,
                           const PatchwiseAttentionOperands<T>& operands, const OutputQuad& output, const int* sources,
                           const Compute<T>* weights, int tap, int taps, Four<Compute<T>>& sums) {
  const int* const of_taps = sources + int(output.pixel) * plan.sources_step + 1 + tap;
  const Compute<T>* const of_pixel = weights + int(output.pixel) * plan.weights_stride + output.weight();
#pragma unroll 4
  for (int i = 0; i < taps; ++i) {
    const int source = of_taps[i];
    if (source < 0) continue;
    const T* const from = operands.value + source * problem.value_step + output.channel;
    const Four<Compute<T>> value = load_channels(from, int(output.count), operands.value_aligned);
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
    if (!operands.output_scale || c >= int(output.count)) break;
    const int channel = int(output.channel) + c;
    sums.of[c] = relu(sums.of[c] * operands.output_scale[channel] + operands.output_shift[channel]);
  }
  T* const to = operands.output + (first_pixel + output.pixel) * problem.value_channels + output.channel;
  store_channels(sums, int(output.count), operands.output_aligned, to);
}

}  // namespace sa_layers::cuda
