// Patchwise attention with frozen norms in one kernel, which writes nothing that has taps to global memory.
//
//     hidden = relu(hidden_bias + sum over taps and channels of hidden_weight * relu(scale * feature + shift))
//     output = sum over taps of (bias + weight * hidden) * value
//
// A block has some output pixels, which are the rows of two matrix products in shared memory. The left factor of the
// first and the result of the second are made and used up a part at a time; both matrices are streamed through.
#pragma once

#include "cuda/patchwise_multiply_adds.cuh"
#include "cuda/patchwise_sums.cuh"
#include "cuda/patchwise_tensor_cores.cuh"
#include "cuda/shared_memory.cuh"

namespace sa_layers::cuda {

// The hidden layer, of plan.hidden_stride numbers for each pixel. Two panels take turns, so that a thread that is
// through with one begins the next.
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
      const Panel panel = {tap, least(plan.panel_taps, all_taps - tap), channel,
                           least(plan.panel_channels, all_channels - channel)};
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
  __syncthreads();  // the sums take the place of the panels
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
  __syncthreads();  // what follows takes their place
}

// The outputs whose weights lie in the slice that begins at `first`.
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
  OutputQuad outputs[kPatchwiseQuads];
  Four<C> sums[kPatchwiseQuads] = {};
#pragma unroll
  for (int i = 0; i < kPatchwiseQuads; ++i) outputs[i].find(problem, plan, i, first, pixels);
  for (int tap = 0; tap < all_taps; tap += plan.taps) {
    const int taps = least(plan.taps, all_taps - tap);
    const WeightMatrix part = {tap, taps, first, plan.slice, all_taps, problem.weight_channels};
    Product::copy_matrix(part, operands.weight, operands.matrices_aligned, plan.hidden, plan.columns, matrix,
                         plan.matrix_stride);
    copy_constants(part, operands.bias, plan.columns, constants);
    __syncthreads();  // the values have been added up with the weights before
    Product::make_weights(plan, pixels, plan.columns, hidden, matrix, constants, weights);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kPatchwiseQuads; ++i) {
      if (outputs[i].count == 0) continue;
      add_values(problem, plan, operands, outputs[i], sources, weights, tap, taps, sums[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kPatchwiseQuads; ++i) {
    if (outputs[i].count > 0) write_output(problem, operands, outputs[i], first_pixel, sums[i]);
  }
}

template <typename T, bool kTensorCores>
__global__ void __launch_bounds__(kAttentionThreads, sizeof(Compute<T>) == 4 ? 2 : 1)
    patchwise_attention_tiles(const __grid_constant__ PatchwiseAttention problem,
                              const __grid_constant__ PatchwiseAttentionPlan plan,
                              const __grid_constant__ PatchwiseAttentionOperands<T> operands) {
  using Number = Factor<T, kTensorCores>;
  // Where the architecture has none for such factors, nothing is compiled, and the launcher does without.
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
