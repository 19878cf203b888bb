// A softmax over taps that come row by row, for the pixels and weights of a warp.
#pragma once

#include "cuda/banded_weights.cuh"

namespace sa_layers::cuda {

constexpr float kLog2E = 1.4426950408889634f;

// Weights stay below this. They are relative to a logit that is not the greatest, as long as they do.
template <typename T>
constexpr float kLargestWeight = std::is_same_v<T, __half> ? 32'768.0f : 1e18f;

// Numbers of a thread: for two weights of every eight, of the pixel in the first row and of the one in the second.
template <int kEights>
using OfWeights = float[kEights][4];

// Calls body(eight, i) for all of them.
template <int kEights, typename Body>
__device__ void for_each_weight(const Body& body) {
#pragma unroll
  for (int eight = 0; eight < kEights; ++eight) {
#pragma unroll
    for (int i = 0; i < 4; ++i) body(eight, i);
  }
}

// The exponent that weights are relative to, and their sum.
template <int kEights>
struct BandedSoftmax {
  OfWeights<kEights> relative_to = {}, total = {};

  // Makes the weights of one row of output pixels relative to a tap. With a lower limit, since minus infinity minus
  // itself is no number.
  __device__ void start(int half, const OfWeights<kEights>& logits) {
    for_each_weight<kEights>([&](int eight, int i) {
      if (i / 2 == half) relative_to[eight][i] = fmaxf(kLog2E * logits[eight][i], -1e37f);
    });
  }
};

// Hands numbers of a thread's pixels and weights to those that have the sums: [row of two][pixel][weight], in the
// memory of the bands.
template <int kWeights, int kEights>
__device__ void share_numbers(const OfWeights<kEights>& numbers, const BandedTile& tile, float* to) {
  __syncwarp();
  for_each_weight<kEights>([&](int eight, int i) {
    const int weight = 8 * eight + 2 * tile.pair() + i % 2;
    if (weight < kWeights) to[(i / 2 * kTileColumns + tile.pixel()) * kWeights + weight] = numbers[eight][i];
  });
  __syncwarp();
}

// Makes the weights relative to the greatest exponents, and what was added up before with them.
template <typename T, int kWeights, int kEights>
__device__ void rescale(const OfWeights<kEights>& greatest, const BandedTile& tile, const Bands<T, kWeights>& bands,
                        BandedSoftmax<kEights>& softmax, BandedSums<kWeights>& sums) {
  OfWeights<kEights> factors;
  for_each_weight<kEights>([&](int eight, int i) {
    float &relative_to = softmax.relative_to[eight][i], &total = softmax.total[eight][i], &factor = factors[eight][i];
    factor = 1;
    if (!(greatest[eight][i] > relative_to)) return;
    factor = total > 0 ? power_of_two(relative_to - greatest[eight][i]) : 0;
    total *= factor, relative_to = greatest[eight][i];
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

}  // namespace sa_layers::cuda
