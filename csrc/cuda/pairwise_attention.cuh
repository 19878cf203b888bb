// Pairwise attention in one pass. A block has some output pixels and goes through their taps, a few at a time: it
// relates the pairs of pixels and taps, maps their features layer by layer, and adds up values with a running softmax.
// What has taps never leaves shared memory. Keys and values come through the cache: a key is read once for as many
// products as the first layer has outputs, and pixels that follow each other read nearly the same ones.
#pragma once

#include "cuda/matrix_tiles.cuh"
#include "cuda/pairs.cuh"
#include "cuda/running_softmax.cuh"
#include "cuda/shared_memory.cuh"
#include "cuda/tensor_tiles.cuh"
#include "cuda/value_sums.cuh"

namespace sa_layers::cuda {

// The work of a block, with the factors of the mapping's products as tensor cores read them or as numbers of the sums.
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
  C *const greatest = numbers(plan.greatest), *const total = numbers(plan.total);
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
  // Of the rows before a layer; an index that varies would take a register.
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

  find_centres(problem, first_pixel, pixels, centres);
  for (int layer = 0; plan.resident && layer < problem.layers; ++layer) copy_slice(layer, 0, plan.columns[layer]);
  Four<C> sums[kAttentionQuads] = {};
  for (int first_tap = 0; first_tap < all_taps; first_tap += plan.taps) {
    const int taps = least(plan.taps, all_taps - first_tap), rows = pixels * taps;
    __syncthreads();  // the centres are there, the last round's neighbours and logits not needed any more
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
        const int columns = least(plan.columns[layer], width - first);
        if (!plan.resident) {
          __syncthreads();  // the slice before is not needed any more
          copy_slice(layer, first, columns);
        }
        __syncthreads();
        multiply_slice(layer, rows, first, columns);
      }
    }
    __syncthreads();
    C* const logits = numbers(features_of(problem.layers));
    const int stride = plan.strides[problem.layers];
    run_softmax(logits, stride, plan.logits, pixels, taps, first_tap == 0, greatest, total, correction);
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
  // Where the architecture has none for such factors, nothing is compiled, and the launcher does without.
  if constexpr (!kTensorCores || has_tensor_cores<Factor<T, kTensorCores>>()) {
    attend<kTensorCores>(problem, plan, operands);
  }
}

}  // namespace sa_layers::cuda
