// The online softmax of the banded kernel, over taps that come row by row. The weights of a row become bands of
// matrices.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "cuda/banded/bands.cuh"
#include "cuda/banded/plan.h"
#include "cuda/common/half2.cuh"
#include "cuda/common/mma.cuh"
#include "cuda/pairwise_attention/banded/logits.cuh"

namespace sa_layers::cuda {

constexpr float kLog2E = 1.4426950408889634f;

// Weights are relative to the first tap's logit. They are rescaled to the running maximum only if a running total, and
// so possibly a weight, exceeds this limit: a weight must fit T.
template <typename T>
constexpr float kLargestWeight = std::is_same_v<T, __half> ? 32'768.0f : 1e18f;

// The exponent that weights are relative to, and their running total.
template <int kWeightTiles>
struct BandedSoftmax {
  OfWeights<kWeightTiles> relative_to = {}, total = {};

  // Makes the weights of one row of output pixels relative to a tap; clamped, since -inf - -inf is NaN.
  __device__ void start(int half, const OfWeights<kWeightTiles>& logits) {
    for_each_weight<kWeightTiles>([&](int weight_tile, int i) {
      if (i / 2 == half) relative_to[weight_tile][i] = fmaxf(kLog2E * logits[weight_tile][i], -1e37f);
    });
  }
};

// Transposes numbers from the layout of weights to that of sums through the memory of the bands: [row][pixel][weight].
template <int kWeights, int kWeightTiles>
__device__ void share_numbers(const OfWeights<kWeightTiles>& numbers, const BandedTile& tile, float* to) {
  __syncwarp();
  for_each_weight<kWeightTiles>([&](int weight_tile, int i) {
    const int weight = 8 * weight_tile + 2 * tile.pair() + i % 2;
    if (weight < kWeights) to[(i / 2 * kTileColumns + tile.pixel()) * kWeights + weight] = numbers[weight_tile][i];
  });
  __syncwarp();
}

// Rescales totals and sums to the new maximum exponents.
template <typename T, int kWeights, int kWeightTiles>
__device__ void rescale(const OfWeights<kWeightTiles>& maximum, const BandedTile& tile, const Bands<T, kWeights>& bands,
                        BandedSoftmax<kWeightTiles>& softmax, BandedSums<kWeights>& sums) {
  OfWeights<kWeightTiles> factors;
  for_each_weight<kWeightTiles>([&](int weight_tile, int i) {
    float &relative_to = softmax.relative_to[weight_tile][i], &total = softmax.total[weight_tile][i],
          &factor = factors[weight_tile][i];
    factor = 1;
    if (!(maximum[weight_tile][i] > relative_to)) return;
    factor = total > 0 ? power_of_two(relative_to - maximum[weight_tile][i]) : 0;
    total *= factor, relative_to = maximum[weight_tile][i];
  });
  float* const shared = reinterpret_cast<float*>(bands.memory());
  share_numbers<kWeights>(factors, tile, shared);
#pragma unroll
  for (int weight = 0; weight < kWeights; ++weight) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sums.of[weight][i] *= shared[(i / 2 * kTileColumns + tile.pixel()) * kWeights + weight];
    }
  }
  __syncwarp();
  bands.clear(tile.lane);
  __syncwarp();
}

// The maximum exponents up to and including a row.
template <typename T, typename Mapping>
__device__ void find_maximum(const WarpPairs<T, Mapping>& pairs, const BandedRow& row,
                             const BandedSoftmax<Mapping::kWeightTiles>& softmax,
                             OfWeights<Mapping::kWeightTiles>& maximum) {
  for_each_weight<Mapping::kWeightTiles>(
      [&](int weight_tile, int i) { maximum[weight_tile][i] = softmax.relative_to[weight_tile][i]; });
  for_each_tap<0>(pairs, row, [&](int, const OfWeights<Mapping::kWeightTiles>& logits) {
    for_each_weight<Mapping::kWeightTiles>([&](int weight_tile, int i) {
      const float exponent = kLog2E * logits[weight_tile][i];
      if (row.has_tap[i / 2] && exponent > maximum[weight_tile][i]) maximum[weight_tile][i] = exponent;
    });
  });
}

// Writes the bands of a row, computes the running `total`, and returns whether any total exceeds kLargestWeight. If
// `starts`, the output row `half_that_starts` first becomes relative to its first tap.
template <int kKernelWidth, typename T, typename Mapping>
__device__ bool weigh_row(const WarpPairs<T, Mapping>& pairs, const BandedRow& row, bool starts, int half_that_starts,
                          const Bands<T, Mapping::kWeights>& bands, BandedSoftmax<Mapping::kWeightTiles>& softmax,
                          OfWeights<Mapping::kWeightTiles>& total) {
  constexpr int kWeightTiles = Mapping::kWeightTiles;
  for_each_weight<kWeightTiles>([&](int weight_tile, int i) { total[weight_tile][i] = softmax.total[weight_tile][i]; });
  OfWeights<kWeightTiles> relative_to;
  // A row of output pixels without a tap uses an infinite reference, so its weights are zero.
  const auto take_over = [&] {
    for_each_weight<kWeightTiles>([&](int weight_tile, int i) {
      relative_to[weight_tile][i] = row.has_tap[i / 2] ? softmax.relative_to[weight_tile][i] : INFINITY;
    });
  };
  take_over();
  for_each_tap<kKernelWidth>(pairs, row, [&](int tap, const OfWeights<kWeightTiles>& logits) {
    if (tap == 0 && starts) softmax.start(half_that_starts, logits), take_over();
#pragma unroll
    for (int weight_tile = 0; weight_tile < kWeightTiles; ++weight_tile) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float weights[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int at = 2 * half + i;
          weights[i] = power_of_two(kLog2E * logits[weight_tile][at] - relative_to[weight_tile][at]);
          total[weight_tile][at] += weights[i];
        }
        bands.store(half, weight_tile, tap, weights[0], weights[1]);
      }
    }
  });
  bool too_large = false;
  for_each_weight<kWeightTiles>(
      [&](int weight_tile, int i) { too_large |= total[weight_tile][i] > kLargestWeight<T>; });
  return any_of_warp(too_large);
}

}  // namespace sa_layers::cuda
