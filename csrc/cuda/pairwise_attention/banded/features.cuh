// The banded kernel's features of a tap: the parameters of norm and mapping in shared memory, the output pixels' query
// and position in registers, and the relation of both with a key.
#pragma once

#include <cstdint>

#include "cuda/banded/bands.cuh"
#include "cuda/banded/plan.h"
#include "cuda/banded/region.cuh"
#include "cuda/common/factor.cuh"
#include "cuda/common/half2.cuh"
#include "cuda/common/mma.cuh"
#include "cuda/pairwise_attention/pairs.cuh"
#include "cuda/pairwise_attention/problem.h"
#include "footprint.h"

namespace sa_layers::cuda {

// The mapping: from kChannels of the relation, two position features and ones for the bias to kHidden channels, and
// from these to kWeights logits, without a bias, which the softmax would cancel. Strides are an odd multiple of 16
// bytes.
template <int kChannels_, int kWeights_>
struct BandedMapping {
  static constexpr int kChannels = kChannels_, kWeights = kWeights_;
  // Steps of eight features; the last one also has the positions and two ones for the bias.
  static constexpr int kSteps = kChannels < 8 ? 1 : kChannels / 8 + 1, kDoubleSteps = kSteps / 2;
  static constexpr int kHidden = kChannels < 8 ? 8 : kChannels, kWeightTiles = (kWeights + 7) / 8;
  static constexpr int kHiddenStride = kSteps * 16, kWeightStride = kHidden * 2 + (kHidden > 8 ? 16 : 0);
  // The warps that share a tile: each computes the hidden layer of some taps for all, and has its own weight channels.
  static constexpr int kParts = kChannels < 64 ? 1 : kChannels / 32, kAllWeights = kParts * kWeights;
  static constexpr int kKeyStride = kChannels < 8 ? 16 : kChannels * 2 + 16, kValueStride = kAllWeights * 16 + 16;
  // Shared memory: scale and shift in pairs of channels, and both matrices, (output, input).
  static constexpr int kNormBytes = kChannels * 4, kHiddenBytes = kHidden * kHiddenStride;
  static constexpr int kBytes = kNormBytes + kHiddenBytes + kParts * kWeightTiles * 8 * kWeightStride;
  // Taps whose products are computed together, limited by registers.
  static constexpr int kTapsAtOnce = kChannels < 8 ? 3 : kChannels < 128 ? 2 : 1;
  // The kernel width that SAN uses, for which the kernel is specialized; 0 if the unrolled code would be too long.
  static constexpr int kUsualWidth = kChannels < 8 ? 3 : kChannels < 64 ? 7 : 0;
  static constexpr int kPositionPair = kChannels % 8 / 2;  // in the last step
  static_assert(kSteps % 2 == 1 && (kHidden == 8 || kHidden % 16 == 0));
};

// Copies the norm and the matrices, for the weights starting at `first_weight`, into shared memory in half precision.
template <typename Mapping, typename T>
__device__ void copy_mapping(const PairwiseAttention& problem, const PairwiseAttentionOperands<T>& operands,
                             int first_weight, unsigned char* to) {
  constexpr int kChannels = Mapping::kChannels, kFeatures = 8 * Mapping::kSteps;
  for (int pair = int(threadIdx.x); pair < kChannels / 2; pair += int(blockDim.x)) {
    uint32_t* const norm = reinterpret_cast<uint32_t*>(to) + 2 * pair;
    norm[0] = pack_factors<T>(operands.scale[2 * pair], operands.scale[2 * pair + 1]);
    norm[1] = pack_factors<T>(operands.shift[2 * pair], operands.shift[2 * pair + 1]);
  }
  T* const hidden = reinterpret_cast<T*>(to + Mapping::kNormBytes);
  for (int item = int(threadIdx.x); item < Mapping::kHidden * kFeatures; item += int(blockDim.x)) {
    const int output = item / kFeatures, input = item % kFeatures;
    float number = 0;
    if (output < kChannels && input < kChannels + problem.positions) {
      number = operands.weights[0][output * problem.weight_steps[0].output + input * problem.weight_steps[0].input];
    }
    T factor = factor_of<T>(number);
    if (output < kChannels && (input == kChannels + 2 || input == kChannels + 3)) {  // the bias and its rounding error
      const float bias = operands.biases[0][output];
      factor = factor_of<T>(bias);
      if (input == kChannels + 3) factor = factor_of<T>(bias - widen(factor));
    }
    hidden[item] = factor;
  }
  unsigned char* const weight = to + Mapping::kNormBytes + Mapping::kHiddenBytes;
  constexpr int kRows = 8 * Mapping::kWeightTiles * Mapping::kParts;
  for (int item = int(threadIdx.x); item < kRows * Mapping::kHidden; item += int(blockDim.x)) {
    const int output = item / Mapping::kHidden, input = item % Mapping::kHidden;
    float number = 0;
    if (output < Mapping::kAllWeights && input < kChannels) {
      number = operands.weights[1][(first_weight + output) * problem.weight_steps[1].output +
                                   input * problem.weight_steps[1].input];
    }
    reinterpret_cast<T*>(weight + output * Mapping::kWeightStride)[input] = factor_of<T>(number);
  }
}

// The two matrices as right fragments; those of small mappings stay in registers.
template <typename Mapping>
class MappingMatrices {
 public:
  __device__ MappingMatrices(const unsigned char* memory, int part, int lane) {
    const unsigned char* const hidden = memory + Mapping::kNormBytes;
    // Four 8x8 matrices: eight outputs, their next inputs, then both of the next eight outputs.
    const int output = lane / 16 * 8 + lane % 8, next = lane / 8 % 2;
    hidden_ = hidden + output * Mapping::kHiddenStride + next * 16;
    // Two 8x8 matrices: eight outputs, then the next eight.
    last_ = hidden + lane % (Mapping::kHidden < 16 ? 8 : 16) * Mapping::kHiddenStride + 32 * Mapping::kDoubleSteps;
    const int weight = part * Mapping::kWeights + (Mapping::kWeightTiles > 1 ? output : lane % 8);
    weights_ =
        hidden + Mapping::kHiddenBytes + weight * Mapping::kWeightStride + (Mapping::kHidden > 8 ? next * 16 : 0);
    if constexpr (kInRegisters) {
#pragma unroll
      for (int step = 0; step < Mapping::kDoubleSteps; ++step) load_matrices(hidden_ + 32 * step, kept_hidden_[step]);
      load_matrices(last_, kept_last_);
      load_matrices(weights_, kept_weights_);
    }
  }
  // Sixteen hidden channels, a double step of features.
  __device__ void hidden(int k_tile, int step, uint32_t (&words)[4]) const {
    if constexpr (kInRegisters) {
#pragma unroll
      for (int i = 0; i < 4; ++i) words[i] = kept_hidden_[step][i];
    } else {
      load_matrices(hidden_ + k_tile * 16 * Mapping::kHiddenStride + 32 * step, words);
    }
  }
  // The same for the last step.
  __device__ void hidden(int k_tile, uint32_t (&words)[2]) const {
    if constexpr (kInRegisters) {
      words[0] = kept_last_[0], words[1] = kept_last_[1];
    } else {
      load_matrices(last_ + k_tile * 16 * Mapping::kHiddenStride, words);
    }
  }
  // Eight or sixteen weights, sixteen hidden channels.
  template <int kWords>
  __device__ void weights(int k_tile, uint32_t (&words)[kWords]) const {
    if constexpr (kInRegisters) {
      words[0] = kept_weights_[0], words[1] = kept_weights_[1];
    } else if constexpr (Mapping::kWeightTiles > 1) {
      load_matrices(weights_ + 32 * k_tile, words);
    } else {
      uint32_t two[2];
      load_matrices(weights_ + 32 * k_tile, two);
      words[0] = two[0], words[1] = two[1];
    }
  }

 private:
  static constexpr bool kInRegisters = Mapping::kHidden <= 16 && Mapping::kWeightTiles == 1;
  const unsigned char *hidden_, *last_, *weights_;
  uint32_t kept_hidden_[kInRegisters && Mapping::kDoubleSteps > 0 ? Mapping::kDoubleSteps : 1][4], kept_last_[2],
      kept_weights_[2];
};

// Scale and shift of a pair of channels.
struct alignas(8) PairNorm {
  uint32_t scale, shift;
};

// The output pixels' part of the features: query channels, in pairs, and positions. Steps have four pairs of channels,
// one for each thread of a pixel.
template <typename T, typename Mapping>
class BandedQuery {
 public:
  __device__ BandedQuery(const PairwiseAttention& problem, const PairwiseAttentionOperands<T>& operands,
                         const BandedRegion& region, const BandedTile& tile, const PairNorm* norms)
      : first_pair_(min(tile.pair(), Mapping::kChannels / 2 - 1)), norms_(norms + first_pair_) {
    const Axis &down = problem.footprint.rows, &right = problem.footprint.columns;
    const int column = min(region.column + tile.column_tile * kTileColumns + tile.pixel(), int(right.size) - 1);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = min(region.row + tile.row_tile * kTileRows + half, int(down.size) - 1);
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
        const float position = here[0] * coordinate_of<float>(column, right.size, problem.position_width) +
                               here[1] * coordinate_of<float>(row, down.size, problem.position_height) + here[2];
        const int feature = Mapping::kChannels + i;
        positions_[half][i] = operands.scale[feature] * position + operands.shift[feature];
      }
    }
    const float factor = problem.relation == Relation::kSubtraction ? -1.0f : 1.0f;
    sign_ = pack<T>(factor, factor);
    if constexpr (kInRegisters) {
#pragma unroll
      for (int i = 0; i < kPairs; ++i) kept_norm_[i] = norms_[4 * i];
    }
  }

  __device__ int first_pair() const { return first_pair_; }

  // Features of the relation for both pixels of the thread, after norm and ReLU. `key` points to the thread's first
  // pair.
  __device__ void relate(int i, const unsigned char* key, uint32_t& first, uint32_t& second) const {
    const uint32_t there = *reinterpret_cast<const uint32_t*>(key + 16 * i);
    PairNorm norm;
    if constexpr (kInRegisters) {
      norm = kept_norm_[i];
    } else {
      norm = norms_[4 * i];
    }
    const uint32_t related[2] = {packed_multiply_add<T>(there, sign_, channels_[0][i]),
                                 packed_multiply_add<T>(there, sign_, channels_[1][i])};
    first = packed_multiply_add_relu<T>(related[0], norm.scale, norm.shift);
    second = packed_multiply_add_relu<T>(related[1], norm.scale, norm.shift);
  }

  // The position features.
  __device__ uint32_t position(int half, float inside, const float (&there)[2]) const {
    return pack_relu<T>(positions_[half][0] + inside * there[0], positions_[half][1] + inside * there[1]);
  }

 private:
  static constexpr int kPairs = Mapping::kChannels < 8 ? 1 : 2 * Mapping::kDoubleSteps;
  static constexpr bool kInRegisters = Mapping::kChannels <= 32;  // registers hold the norm
  int first_pair_;
  const PairNorm* norms_;
  uint32_t channels_[2][kPairs], sign_;  // the sign of the key: subtraction or summation
  PairNorm kept_norm_[kInRegisters ? kPairs : 1];
  float positions_[2][2] = {};
};

// The features of a tap as left fragments: double steps, then the last step.
template <typename Mapping>
struct PairFeatures {
  uint32_t doubles[Mapping::kDoubleSteps > 0 ? Mapping::kDoubleSteps : 1][4], last[2];
};

// Computes the features of a tap, given its key and its lines of the map.
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

}  // namespace sa_layers::cuda
