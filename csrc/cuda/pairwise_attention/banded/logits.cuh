// The mapping of the banded kernel: from the features of a tap to its logits, on tensor cores, in registers.
#pragma once

#include <cstdint>

#include "cuda/banded/plan.h"
#include "cuda/common/half2.cuh"
#include "cuda/common/mma.cuh"
#include "cuda/common/pack.cuh"
#include "cuda/pairwise_attention/banded/features.cuh"
#include "footprint.h"

namespace sa_layers::cuda {

// The values that a thread holds per tile of eight weights: two weights of its pixel in the first row, then the same
// two of its pixel in the second row.
template <int kWeightTiles>
using OfWeights = float[kWeightTiles][4];

// Calls body(weight_tile, i) for all values of a thread.
template <int kWeightTiles, typename Body>
__device__ void for_each_weight(const Body& body) {
#pragma unroll
  for (int weight_tile = 0; weight_tile < kWeightTiles; ++weight_tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) body(weight_tile, i);
  }
}

// Sixteen hidden channels of some taps after their ReLU, as left fragments of the next product.
template <typename T, int kTaps, typename Mapping>
__device__ void activate_hidden(const MappingMatrices<Mapping>& matrices,
                                const PairFeatures<Mapping> (&features)[kTaps], int k_tile,
                                uint32_t (&activated)[kTaps][4]) {
  float sums[kTaps][2][4] = {};
#pragma unroll
  for (int step = 0; step < Mapping::kDoubleSteps; ++step) {
    uint32_t right[4];
    matrices.hidden(k_tile, step, right);
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap) {
      multiply_accumulate<T>(sums[tap][0], features[tap].doubles[step], &right[0]);
      multiply_accumulate<T>(sums[tap][1], features[tap].doubles[step], &right[2]);
    }
  }
  uint32_t last[2];
  matrices.hidden(k_tile, last);
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      multiply_accumulate_half_step<T>(sums[tap][i], features[tap].last, last[i]);
      activated[tap][2 * i] = pack_relu<T>(sums[tap][i][0], sums[tap][i][1]);
      activated[tap][2 * i + 1] = pack_relu<T>(sums[tap][i][2], sums[tap][i][3]);
    }
  }
}

// Logits of some taps, computed from their features: per tile of eight weights, weights 2 * pair and 2 * pair + 1 of
// the first row's pixel, then of the second row's.
template <typename T, int kTaps, typename Mapping>
__device__ void find_logits(const MappingMatrices<Mapping>& matrices, const PairFeatures<Mapping> (&features)[kTaps],
                            float (&logits)[kTaps][Mapping::kWeightTiles][4]) {
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap) {
#pragma unroll
    for (int weight_tile = 0; weight_tile < Mapping::kWeightTiles; ++weight_tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) logits[tap][weight_tile][i] = 0;
    }
  }
  if constexpr (Mapping::kHidden == 8) {
    uint32_t hidden_right[2], right[2];
    matrices.hidden(0, hidden_right);
    matrices.weights(0, right);
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap) {
      float sums[4] = {};
      multiply_accumulate_half_step<T>(sums, features[tap].last, hidden_right[0]);
      const uint32_t activated[2] = {pack_relu<T>(sums[0], sums[1]), pack_relu<T>(sums[2], sums[3])};
      multiply_accumulate_half_step<T>(logits[tap][0], activated, right[0]);
    }
  } else {
#pragma unroll
    for (int k_tile = 0; k_tile < Mapping::kHidden / 16; ++k_tile) {
      uint32_t activated[kTaps][4], right[4];
      activate_hidden<T>(matrices, features, k_tile, activated);
      matrices.weights(k_tile, right);
#pragma unroll
      for (int tap = 0; tap < kTaps; ++tap) {
#pragma unroll
        for (int weight_tile = 0; weight_tile < Mapping::kWeightTiles; ++weight_tile) {
          multiply_accumulate<T>(logits[tap][weight_tile], activated[tap], &right[2 * weight_tile]);
        }
      }
    }
  }
}

// Shared memory through which the warps of a tile exchange hidden activations: each computes those of some taps, for
// all warps.
template <typename T, typename Mapping>
class HiddenExchange {
 public:
  static constexpr int kParts = Mapping::kParts, kOwn = Mapping::kTapsAtOnce;
  static constexpr int kTaps = kParts * kOwn;  // per round
  static constexpr int kFragments = Mapping::kHidden / 16, kFragmentBytes = 32 * 16;
  static constexpr int kBytes = kParts == 1 ? 0 : kTaps * kFragments * kFragmentBytes + 16;

  __device__ HiddenExchange(unsigned char* memory, int tile, int part, int lane)
      : place_(memory + 16 * lane), flags_(reinterpret_cast<int*>(memory + kBytes - 16)), tile_(tile), part_(part) {}

  __device__ int own_tap(int i) const { return part_ * kOwn + i; }
  // Sixteen hidden channels of a tap of the round, as left fragments.
  __device__ void store(int tap, int k_tile, const uint32_t (&words)[4]) const {
    *reinterpret_cast<Pack<uint32_t, 4>*>(place_ + (tap * kFragments + k_tile) *
                                                       kFragmentBytes) = {{words[0], words[1], words[2], words[3]}};
  }
  __device__ void load(int tap, int k_tile, uint32_t (&words)[4]) const {
    const auto fragment =
        *reinterpret_cast<const Pack<uint32_t, 4>*>(place_ + (tap * kFragments + k_tile) * kFragmentBytes);
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = fragment[i];
  }
  // A barrier for the warps of the tile.
  __device__ void synchronize() const { named_barrier(1 + tile_, kParts); }
  // Whether the predicate holds for any warp of the tile.
  __device__ bool any(bool holds) const {
    if constexpr (kParts == 1) return holds;
    if (threadIdx.x % 32 == 0) flags_[part_] = holds;
    synchronize();
    bool found = false;
#pragma unroll
    for (int i = 0; i < kParts; ++i) found |= flags_[i] != 0;
    return found;
  }

 private:
  unsigned char* place_;
  int* flags_;
  int tile_, part_;
};

// A warp's state for all rows.
template <typename T, typename Mapping>
struct WarpPairs {
  BandedQuery<T, Mapping> query;
  MappingMatrices<Mapping> matrices;
  HiddenExchange<T, Mapping> exchange;
  int pair, kernel_width;
};

// A row of the map: the thread's first keys, its line and columns. It is a different row of taps for each of the tile's
// two rows of output pixels. At the first and the last step, one of the two has no tap in it.
struct BandedRow {
  const unsigned char* key;
  Line line;
  const Line* columns;
  bool has_tap[2];
};

// Computes the features of some taps of a row.
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

// Logits of kTaps taps, computed by the warp alone.
template <int kTaps, typename T, typename Mapping>
__device__ void find_logits(const WarpPairs<T, Mapping>& pairs, const BandedRow& row, int first_tap,
                            float (&logits)[kTaps][Mapping::kWeightTiles][4]) {
  PairFeatures<Mapping> features[kTaps];
  int taps[kTaps];
#pragma unroll
  for (int i = 0; i < kTaps; ++i) taps[i] = first_tap + i;
  find_features(pairs, row, taps, features);
  find_logits<T>(pairs.matrices, features, logits);
}

// The same, shared with the other warps of the tile; taps beyond the last are clamped.
template <typename T, typename Mapping, int kTaps>
__device__ void find_logits_together(const WarpPairs<T, Mapping>& pairs, const BandedRow& row, int first_tap,
                                     float (&logits)[kTaps][Mapping::kWeightTiles][4]) {
  constexpr int kOwn = Mapping::kTapsAtOnce;
  const HiddenExchange<T, Mapping>& exchange = pairs.exchange;
  {
    PairFeatures<Mapping> features[kOwn];
    int taps[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) taps[i] = min(first_tap + exchange.own_tap(i), pairs.kernel_width - 1);
    find_features(pairs, row, taps, features);
#pragma unroll
    for (int k_tile = 0; k_tile < Mapping::kHidden / 16; ++k_tile) {
      uint32_t activated[kOwn][4];
      activate_hidden<T>(pairs.matrices, features, k_tile, activated);
#pragma unroll
      for (int i = 0; i < kOwn; ++i) exchange.store(exchange.own_tap(i), k_tile, activated[i]);
    }
  }
  exchange.synchronize();
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap) {
    for_each_weight<Mapping::kWeightTiles>([&](int weight_tile, int i) { logits[tap][weight_tile][i] = 0; });
  }
#pragma unroll
  for (int k_tile = 0; k_tile < Mapping::kHidden / 16; ++k_tile) {
    uint32_t right[4];
    pairs.matrices.weights(k_tile, right);
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap) {
      uint32_t activated[4];
      exchange.load(tap, k_tile, activated);
#pragma unroll
      for (int weight_tile = 0; weight_tile < Mapping::kWeightTiles; ++weight_tile) {
        multiply_accumulate<T>(logits[tap][weight_tile], activated, &right[2 * weight_tile]);
      }
    }
  }
  exchange.synchronize();
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
      float logits[kTaps][Mapping::kWeightTiles][4];
      find_logits_together(pairs, row, tap, logits);
#pragma unroll
      for (int i = 0; i < kTaps; ++i) {
        if (tap + i < width) body(tap + i, logits[i]);
      }
    }
  } else {
#pragma unroll(kKernelWidth > 0 ? kKernelWidth : 1)
    for (; tap + kTaps <= width; tap += kTaps) {
      float logits[kTaps][Mapping::kWeightTiles][4];
      find_logits<kTaps>(pairs, row, tap, logits);
#pragma unroll
      for (int i = 0; i < kTaps; ++i) body(tap + i, logits[i]);
    }
#pragma unroll(kKernelWidth > 0 ? kKernelWidth : 1)
    for (; tap < width; ++tap) {
      float logits[1][Mapping::kWeightTiles][4];
      find_logits<1>(pairs, row, tap, logits);
      body(tap, logits[0]);
    }
  }
}

}  // namespace sa_layers::cuda
