// Patchwise attention of any widths with frozen norms in one kernel, which writes nothing that has taps to global
// memory.
//
//     hidden = relu(hidden_bias + sum over taps and channels of hidden_weight * relu(scale * feature + shift))
//     output = sum over taps of (bias + weight * hidden) * value
//
// A block has some output pixels, which are the rows of two matrix products in shared memory. The left operand of the
// first and the result of the second are produced and consumed a part at a time; both matrices are streamed.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/common/block_sizes.h"
#include "cuda/common/element.cuh"
#include "cuda/common/factor.cuh"
#include "cuda/common/pack.cuh"
#include "cuda/common/shared_memory.cuh"
#include "cuda/patchwise_attention/features.cuh"
#include "cuda/patchwise_attention/plan.h"
#include "cuda/patchwise_attention/problem.h"
#include "cuda/patchwise_attention/products.cuh"
#include "footprint.h"

namespace sa_layers::cuda {

// Four channels of an output pixel, whose sums a thread keeps in registers, and the first of their weights in a slice.
// Packed into one register to leave room for the sums.
struct OutputPack {
  unsigned pixel : 6, channel : 12, weight_pack : 7, count : 3;  // count is 0 for an idle thread
  static_assert(kPatchwisePixels <= 1 << 6 && kPatchwiseValues <= 1 << 12 && kPatchwiseWeights <= 4 << 7);

  // The thread's pack number `index`, in the slice that begins at the weight `first`.
  __device__ void find(const PatchwiseAttention& problem, const PatchwiseAttentionPlan& plan, int index, int first,
                       int pixels) {
    const int item = int(threadIdx.x) + index * int(blockDim.x), packs = plan.slice / 4;
    const int pack = item % packs, of_pixel = item / (packs * plan.shares);
    const int of_tap = first + 4 * pack;  // the channel's weight
    const int of_value = item / packs % plan.shares * plan.weights + of_tap;
    const int left = min(plan.weights - of_tap, problem.value_channels - of_value);
    *this = {};
    if (of_pixel >= pixels || left <= 0) return;
    pixel = unsigned(of_pixel), channel = unsigned(of_value), weight_pack = unsigned(pack);
    count = unsigned(min(4, left));
  }
  __device__ int weight() const { return 4 * int(weight_pack); }
};

// Accumulates the values at the taps of a round, which begins at `tap`, times their weights.
template <typename T>
__device__ void add_values(const PatchwiseAttention& problem, const PatchwiseAttentionPlan& plan,
                           const PatchwiseAttentionOperands<T>& operands, const OutputPack& output, const int* sources,
                           const Compute<T>* weights, int tap, int taps, Pack<Compute<T>, 4>& sums) {
  const int* const of_taps = sources + int(output.pixel) * plan.sources_step + 1 + tap;
  const Compute<T>* const of_pixel = weights + int(output.pixel) * plan.weights_stride + output.weight();
#pragma unroll 4
  for (int i = 0; i < taps; ++i) {
    const int source = of_taps[i];
    if (source < 0) continue;
    const T* const from = operands.value + source * problem.value_step + output.channel;
    const Pack<Compute<T>, 4> value = load_channels(from, int(output.count), operands.value_aligned);
    const Pack<Compute<T>, 4> weight = load_pack<4>(of_pixel + i * plan.slice);
#pragma unroll
    for (int c = 0; c < 4; ++c) sums[c] += weight[c] * value[c];
  }
}

template <typename T>
__device__ void write_output(const PatchwiseAttention& problem, const PatchwiseAttentionOperands<T>& operands,
                             const OutputPack& output, int64_t first_pixel, Pack<Compute<T>, 4> sums) {
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    if (!operands.output_scale || c >= int(output.count)) break;
    const int channel = int(output.channel) + c;
    sums[c] = relu(sums[c] * operands.output_scale[channel] + operands.output_shift[channel]);
  }
  T* const to = operands.output + (first_pixel + output.pixel) * problem.value_channels + output.channel;
  store_channels(sums, int(output.count), operands.output_aligned, to);
}

// The hidden layer, plan.hidden_stride numbers per pixel. Panels are double-buffered, so that a thread that is done
// with one begins the next.
template <typename T, typename Product>
__device__ void compute_hidden(const PatchwiseAttention& problem, const PatchwiseAttentionPlan& plan,
                               const PatchwiseAttentionOperands<T>& operands, int pixels, char* memory) {
  using Number = typename Product::Number;
  using C = Compute<T>;
  const auto numbers = [&](int offset) { return reinterpret_cast<Number*>(memory + offset); };
  const int* const sources = reinterpret_cast<const int*>(memory + plan.sources);
  const int all_taps = problem.feature_taps(), all_channels = problem.feature_channels();
  typename Product::Hidden sums(plan, pixels);
  int turn = 0;
  for (int tap = 0; tap < all_taps; tap += plan.panel_taps) {
    for (int channel = 0; channel < all_channels; channel += plan.panel_channels, turn ^= 1) {
      const Panel panel = {tap, min(plan.panel_taps, all_taps - tap), channel,
                           min(plan.panel_channels, all_channels - channel)};
      Number *const left = numbers(plan.left[turn]), *const right = numbers(plan.right[turn]);
      if (problem.is_product()) {
        activate_products(problem, plan, operands, sources, pixels, panel, plan.depth, left);
      } else {
        activate(problem, plan, operands, sources, pixels, panel, plan.depth, left);
      }
      Product::copy_matrix(HiddenMatrix{panel, plan.panel_channels, all_channels, problem.weight_channels},
                           operands.hidden_weight, operands.matrices_aligned, plan.depth, plan.hidden, right,
                           plan.right_stride);
      __syncthreads();
      sums.add(plan, left, right, plan.depth);
    }
  }
  C* const partial = reinterpret_cast<C*>(memory + plan.partial);
  __syncthreads();  // the sums overwrite the panels
  sums.store(plan, pixels, partial);
  __syncthreads();
  Number* const hidden = numbers(plan.hidden_rows);
  for (int item = int(threadIdx.x); item < pixels * plan.hidden; item += int(blockDim.x)) {
    const int pixel = item / plan.hidden, output = item % plan.hidden;
    C sum = output < problem.weight_channels ? operands.hidden_bias[output] : C(0);
    for (int part = 0; part < plan.parts && output < problem.weight_channels; ++part) {
      sum += partial[(part * plan.pixels + pixel) * plan.hidden + output];
    }
    round_to_factor(relu(sum), hidden[pixel * plan.hidden_stride + output]);
  }
  __syncthreads();  // what follows overwrites the sums
}

// The outputs that use the slice of weights that begins at `first`.
template <typename T, typename Product>
__device__ void compute_outputs(const PatchwiseAttention& problem, const PatchwiseAttentionPlan& plan,
                                const PatchwiseAttentionOperands<T>& operands, int64_t first_pixel, int pixels,
                                int first, char* memory) {
  using Number = typename Product::Number;
  using C = Compute<T>;
  const int* const sources = reinterpret_cast<const int*>(memory + plan.sources);
  const Number* const hidden = reinterpret_cast<const Number*>(memory + plan.hidden_rows);
  Number* const matrix = reinterpret_cast<Number*>(memory + plan.matrix);
  C *const constants = reinterpret_cast<C*>(memory + plan.constants), *const weights = reinterpret_cast<C*>(
                                                                          memory + plan.tap_weights);
  const int all_taps = int(problem.footprint.taps());
  OutputPack outputs[kPatchwisePacks];
  Pack<C, 4> sums[kPatchwisePacks] = {};
#pragma unroll
  for (int i = 0; i < kPatchwisePacks; ++i) outputs[i].find(problem, plan, i, first, pixels);
  for (int tap = 0; tap < all_taps; tap += plan.taps) {
    const int taps = min(plan.taps, all_taps - tap);
    const WeightMatrix part = {tap, taps, first, plan.slice, all_taps, problem.weight_channels};
    Product::copy_matrix(part, operands.weight, operands.matrices_aligned, plan.hidden, plan.columns, matrix,
                         plan.matrix_stride);
    copy_constants(part, operands.bias, plan.columns, constants);
    __syncthreads();  // the previous round's weights have been used
    Product::make_weights(plan, pixels, plan.columns, hidden, matrix, constants, weights);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kPatchwisePacks; ++i) {
      if (outputs[i].count == 0) continue;
      add_values(problem, plan, operands, outputs[i], sources, weights, tap, taps, sums[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kPatchwisePacks; ++i) {
    if (outputs[i].count > 0) write_output(problem, operands, outputs[i], first_pixel, sums[i]);
  }
}

template <typename T, bool kTensorCores>
__global__ void __launch_bounds__(kAttentionThreads, sizeof(Compute<T>) == 4 ? 2 : 1)
    patchwise_attention_tiles(const __grid_constant__ PatchwiseAttention problem,
                              const __grid_constant__ PatchwiseAttentionPlan plan,
                              const __grid_constant__ PatchwiseAttentionOperands<T> operands) {
  using Number = Factor<T, kTensorCores>;
  // Empty for architectures without such tensor cores, where select.cu does not launch it.
  if constexpr (!kTensorCores || has_tensor_cores<Number>()) {
    using Product = std::conditional_t<kTensorCores, TensorCores<Number>, MultiplyAdds<T>>;
    char* const memory = reinterpret_cast<char*>(shared_memory());
    const int64_t first_pixel = int64_t(blockIdx.x) * plan.pixels, pixels_left = problem.output_pixels() - first_pixel;
    const int pixels = pixels_left < plan.pixels ? int(pixels_left) : plan.pixels;
    list_sources(problem, first_pixel, pixels, plan.sources_step, reinterpret_cast<int*>(memory + plan.sources));
    __syncthreads();
    compute_hidden<T, Product>(problem, plan, operands, pixels, memory);
    for (int first = 0; first < plan.weights; first += plan.slice) {
      compute_outputs<T, Product>(problem, plan, operands, first_pixel, pixels, first, memory);
    }
  }
}

}  // namespace sa_layers::cuda
