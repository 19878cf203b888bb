// A row of the map as the footprints of a warp's output pixels meet it: from the pairs to the bands of their weights.
#pragma once

#include "cuda/banded_hidden_exchange.cuh"
#include "cuda/banded_softmax.cuh"

namespace sa_layers::cuda {

// What a warp has for all rows.
template <typename T, typename Mapping>
struct WarpPairs {
  BandedQuery<T, Mapping> query;
  MappingMatrices<Mapping> matrices;
  HiddenExchange<T, Mapping> exchange;
  int pair, kernel_width;
};

// The thread's first keys of a row, its line and columns. The two rows of output pixels have different taps there, and
// one of them none in the first and the last such row.
struct BandedRow {
  const unsigned char* key;
  Line line;
  const Line* columns;
  bool has_tap[2];
};

template <int kTaps, typename T, typename Mapping>
__device__ void find_features(const WarpPairs<T, Mapping>& pairs, const BandedRow& row, const int (&taps)[kTaps],
                              PairFeatures<Mapping> (&features)[kTaps]) {
#pragma unroll
  for (int i = 0; i < kTaps; ++i) {
    const Line column = row.columns[taps[i]];
    const unsigned char* const key = row.key + column.pixel * Mapping::kKeyStride;
    find_features(pairs.query, pairs.pair, key, row.line, column, features[i]);
  }
}

// Logits of kTaps taps, which the warp computes by itself.
template <int kTaps, typename T, typename Mapping>
__device__ void find_logits(const WarpPairs<T, Mapping>& pairs, const BandedRow& row, int first_tap,
                            float (&logits)[kTaps][Mapping::kEights][4]) {
  PairFeatures<Mapping> features[kTaps];
  int taps[kTaps];
#pragma unroll
  for (int i = 0; i < kTaps; ++i) taps[i] = first_tap + i;
  find_features(pairs, row, taps, features);
  find_logits<T>(pairs.matrices, features, logits);
}

// The same together with the other warps of the tile; taps beyond the last are the last again.
template <typename T, typename Mapping, int kTaps>
__device__ void find_logits_together(const WarpPairs<T, Mapping>& pairs, const BandedRow& row, int first_tap,
                                     float (&logits)[kTaps][Mapping::kEights][4]) {
  constexpr int kOwn = Mapping::kTapsAtOnce;
  const HiddenExchange<T, Mapping>& exchange = pairs.exchange;
  {
    PairFeatures<Mapping> features[kOwn];
    int taps[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) taps[i] = least(first_tap + exchange.own_tap(i), pairs.kernel_width - 1);
    find_features(pairs, row, taps, features);
#pragma unroll
    for (int sixteen = 0; sixteen < Mapping::kHidden / 16; ++sixteen) {
      uint32_t activated[kOwn][4];
      activate_hidden<T>(pairs.matrices, features, sixteen, activated);
#pragma unroll
      for (int i = 0; i < kOwn; ++i) exchange.store(exchange.own_tap(i), sixteen, activated[i]);
    }
  }
  exchange.synchronise();
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap) {
    for_each_weight<Mapping::kEights>([&](int eight, int i) { logits[tap][eight][i] = 0; });
  }
#pragma unroll
  for (int sixteen = 0; sixteen < Mapping::kHidden / 16; ++sixteen) {
    uint32_t right[4];
    pairs.matrices.weights(sixteen, right);
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap) {
      uint32_t activated[4];
      exchange.load(tap, sixteen, activated);
#pragma unroll
      for (int eight = 0; eight < Mapping::kEights; ++eight) {
        multiply_accumulate<T>(logits[tap][eight], activated, &right[2 * eight]);
      }
    }
  }
  exchange.synchronise();
}

// Calls body(tap, logits) for all taps of a row.
template <int kKernelWidth, typename T, typename Mapping, typename Body>
__device__ void for_each_tap(const WarpPairs<T, Mapping>& pairs, const BandedRow& row, const Body& body) {
  constexpr int kTaps = HiddenExchange<T, Mapping>::kTaps;
  const int width = kKernelWidth > 0 ? kKernelWidth : pairs.kernel_width;
  int tap = 0;
  if constexpr (Mapping::kParts > 1) {
#pragma unroll 1
    for (; tap < width; tap += kTaps) {
      float logits[kTaps][Mapping::kEights][4];
      find_logits_together(pairs, row, tap, logits);
#pragma unroll
      for (int i = 0; i < kTaps; ++i) {
        if (tap + i < width) body(tap + i, logits[i]);
      }
    }
  } else {
#pragma unroll(kKernelWidth > 0 ? kKernelWidth : 1)
    for (; tap + kTaps <= width; tap += kTaps) {
      float logits[kTaps][Mapping::kEights][4];
      find_logits<kTaps>(pairs, row, tap, logits);
#pragma unroll
      for (int i = 0; i < kTaps; ++i) body(tap + i, logits[i]);
    }
#pragma unroll(kKernelWidth > 0 ? kKernelWidth : 1)
    for (; tap < width; ++tap) {
      float logits[1][Mapping::kEights][4];
      find_logits<1>(pairs, row, tap, logits);
      body(tap, logits[0]);
    }
  }
}

// The greatest exponents of a row and of those before.
template <typename T, typename Mapping>
__device__ void find_greatest(const WarpPairs<T, Mapping>& pairs, const BandedRow& row,
                              const BandedSoftmax<Mapping::kEights>& softmax, OfWeights<Mapping::kEights>& greatest) {
  for_each_weight<Mapping::kEights>([&](int eight, int i) { greatest[eight][i] = softmax.relative_to[eight][i]; });
  for_each_tap<0>(pairs, row, [&](int, const OfWeights<Mapping::kEights>& logits) {
    for_each_weight<Mapping::kEights>([&](int eight, int i) {
      const float exponent = kLog2E * logits[eight][i];
      if (row.has_tap[i / 2] && exponent > greatest[eight][i]) greatest[eight][i] = exponent;
    });
  });
}

// Writes the bands of a row and adds its weights to `total`. Returns whether they are too large. Where it starts, the
// weights of one row of output pixels become relative to its first tap.
template <int kKernelWidth, typename T, typename Mapping>
__device__ bool weigh_row(const WarpPairs<T, Mapping>& pairs, const BandedRow& row, bool starts, int half_that_starts,
                          const Bands<T, Mapping::kWeights>& bands, BandedSoftmax<Mapping::kEights>& softmax,
                          OfWeights<Mapping::kEights>& total) {
  constexpr int kEights = Mapping::kEights;
  for_each_weight<kEights>([&](int eight, int i) { total[eight][i] = softmax.total[eight][i]; });
  OfWeights<kEights> relative_to;
  // Relative to infinity weights are zeros, for the row of output pixels without a tap.
  const auto take_over = [&] {
    for_each_weight<kEights>([&](int eight, int i) {
      relative_to[eight][i] = row.has_tap[i / 2] ? softmax.relative_to[eight][i] : INFINITY;
    });
  };
  take_over();
  for_each_tap<kKernelWidth>(pairs, row, [&](int tap, const OfWeights<kEights>& logits) {
    if (tap == 0 && starts) softmax.start(half_that_starts, logits), take_over();
#pragma unroll
    for (int eight = 0; eight < kEights; ++eight) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float weights[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int at = 2 * half + i;
          weights[i] = power_of_two(kLog2E * logits[eight][at] - relative_to[eight][at]);
          total[eight][at] += weights[i];
        }
        bands.store(half, eight, tap, weights[0], weights[1]);
      }
    }
  });
  bool too_large = false;
  for_each_weight<kEights>([&](int eight, int i) { too_large |= total[eight][i] > kLargestWeight<T>; });
  return any_of_warp(too_large);
}

}  // namespace sa_layers::cuda
