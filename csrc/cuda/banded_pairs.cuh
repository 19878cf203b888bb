// Pairwise attention in registers, for maps of half precision on tensor cores: what a warp computes for one tap of its
// sixteen output pixels, from the relation to the logits.
#pragma once

#include "cuda/banded_mapping.cuh"
#include "cuda/banded_region.cuh"

namespace sa_layers::cuda {

// The output pixels' part of the features: their channels of the query, in pairs, and of the positions. Steps have four
// pairs of channels, one for each thread of a pixel.
template <typename T, typename Mapping>
class BandedQuery {
 public:
  __device__ BandedQuery(const PairwiseAttention& problem, const PairwiseAttentionOperands<T>& operands,
                         const BandedRegion& region, const BandedTile& tile, const PairNorm* norms)
      : first_pair_(least(tile.pair(), Mapping::kChannels / 2 - 1)), norms_(norms + first_pair_) {
    const Axis &down = problem.footprint.rows, &right = problem.footprint.columns;
    const int column = least(region.column + tile.column_tile * kTileColumns + tile.pixel(), int(right.size) - 1);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = least(region.row + tile.row_tile * kTileRows + half, int(down.size) - 1);
      const T* const from = operands.query + region.image * problem.query_steps.image + row * problem.query_steps.row +
                            column * problem.query_steps.pixel;
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        channels_[half][i] = reinterpret_cast<const uint32_t*>(from)[first_pair_ + 4 * i];
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (i >= problem.positions) continue;
        const float* const here = operands.query_position + 3 * i;
        const float position = here[0] * place<float>(column, right.size, problem.position_width) +
                               here[1] * place<float>(row, down.size, problem.position_height) + here[2];
        const int feature = Mapping::kChannels + i;
        positions_[half][i] = operands.scale[feature] * position + operands.shift[feature];
      }
    }
    const float factor = problem.relation == Relation::kSubtraction ? -1.0f : 1.0f;
    sign_ = pack<T>(factor, factor);
    if constexpr (kKept) {
#pragma unroll
      for (int i = 0; i < kPairs; ++i) kept_norm_[i] = norms_[4 * i];
    }
  }

  __device__ int first_pair() const { return first_pair_; }

  // Features of the relation for both pixels of the thread, after norm and ReLU. `key` is where its first pair lies.
  __device__ void relate(int i, const unsigned char* key, uint32_t& first, uint32_t& second) const {
    const uint32_t there = *reinterpret_cast<const uint32_t*>(key + 16 * i);
    PairNorm norm;
    if constexpr (kKept) {
      norm = kept_norm_[i];
    } else {
      norm = norms_[4 * i];
    }
    const uint32_t related[2] = {packed_multiply_add<T>(there, sign_, channels_[0][i]),
                                 packed_multiply_add<T>(there, sign_, channels_[1][i])};
    first = packed_multiply_add_relu<T>(related[0], norm.scale, norm.shift);
    second = packed_multiply_add_relu<T>(related[1], norm.scale, norm.shift);
  }

  // Those of the positions.
  __device__ uint32_t position(int half, float inside, const float (&there)[2]) const {
    return pack_relu<T>(positions_[half][0] + inside * there[0], positions_[half][1] + inside * there[1]);
  }

 private:
  static constexpr int kPairs = Mapping::kChannels < 8 ? 1 : 2 * Mapping::kDoubleSteps;
  static constexpr bool kKept = Mapping::kChannels <= 32;  // registers have room for the norm
  int first_pair_;
  const PairNorm* norms_;
  uint32_t channels_[2][kPairs], sign_;  // of the key: a difference or a sum
  PairNorm kept_norm_[kKept ? kPairs : 1];
  float positions_[2][2] = {};
};

// The features of a tap, as the left factors of products: double steps, then the last one.
template <typename Mapping>
struct PairFeatures {
  uint32_t doubles[Mapping::kDoubleSteps > 0 ? Mapping::kDoubleSteps : 1][4], last[2];
};

// Those of a tap whose key, and row and column of the map, are given.
template <typename T, typename Mapping>
__device__ void find_features(const BandedQuery<T, Mapping>& query, int pair, const unsigned char* key, const Line& row,
                              const Line& column, PairFeatures<Mapping>& features) {
#pragma unroll
  for (int step = 0; step < Mapping::kDoubleSteps; ++step) {
    uint32_t (&words)[4] = features.doubles[step];
    query.relate(2 * step, key, words[0], words[1]);
    query.relate(2 * step + 1, key, words[2], words[3]);
  }
  uint32_t (&last)[2] = features.last;
  if constexpr (Mapping::kChannels < 8) query.relate(0, key, last[0], last[1]);
  const float inside = row.inside * column.inside, there[2] = {row.first + column.first, row.second + column.second};
  const uint32_t ones = pack<T>(1, 1);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint32_t positions = query.position(half, inside, there);
    if (Mapping::kChannels >= 8 || pair > Mapping::kPositionPair) {
      last[half] = pair == Mapping::kPositionPair + 1 ? ones : 0;
    }
    if (pair == Mapping::kPositionPair) last[half] = positions;
  }
}

// Sixteen hidden channels of some taps after their ReLU, as the left factors of the next product.
template <typename T, int kTaps, typename Mapping>
__device__ void activate_hidden(const MappingMatrices<Mapping>& matrices,
                                const PairFeatures<Mapping> (&features)[kTaps], int sixteen,
                                uint32_t (&activated)[kTaps][4]) {
  float sums[kTaps][2][4] = {};
#pragma unroll
  for (int step = 0; step < Mapping::kDoubleSteps; ++step) {
    uint32_t right[4];
    matrices.hidden(sixteen, step, right);
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap) {
      multiply_accumulate<T>(sums[tap][0], features[tap].doubles[step], &right[0]);
      multiply_accumulate<T>(sums[tap][1], features[tap].doubles[step], &right[2]);
    }
  }
  uint32_t last[2];
  matrices.hidden(sixteen, last);
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

// Logits of some taps: of eights of weights, 2 * pair and the next of the pixel in the first row, then in the second.
template <typename T, int kTaps, typename Mapping>
__device__ void find_logits(const MappingMatrices<Mapping>& matrices, const PairFeatures<Mapping> (&features)[kTaps],
                            float (&logits)[kTaps][Mapping::kEights][4]) {
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap) {
#pragma unroll
    for (int eight = 0; eight < Mapping::kEights; ++eight) {
#pragma unroll
      for (int i = 0; i < 4; ++i) logits[tap][eight][i] = 0;
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
    for (int sixteen = 0; sixteen < Mapping::kHidden / 16; ++sixteen) {
      uint32_t activated[kTaps][4], right[4];
      activate_hidden<T>(matrices, features, sixteen, activated);
      matrices.weights(sixteen, right);
#pragma unroll
      for (int tap = 0; tap < kTaps; ++tap) {
#pragma unroll
        for (int eight = 0; eight < Mapping::kEights; ++eight) {
          multiply_accumulate<T>(logits[tap][eight], activated[tap], &right[2 * eight]);
        }
      }
    }
  }
}

}  // namespace sa_layers::cuda
