// The mapping of patchwise attention's banded kernel in registers, from the packed parameters: the hidden layer of a
// tile, and from it the weights of each tap.
#pragma once

#include <cstdint>

#include "cuda/banded/bands.cuh"
#include "cuda/common/half2.cuh"
#include "cuda/common/mma.cuh"
#include "cuda/common/pack.cuh"
#include "cuda/patchwise_attention/banded/packing.cuh"

namespace sa_layers::cuda {

// Loads a thread's words from packed parameters, in which `threads` threads take turns; `from` points to its first.
template <int kCount>
__device__ void load_words(const uint32_t* from, int threads, uint32_t (&words)[kCount]) {
  constexpr int kTogether = at_once(kCount);
#pragma unroll
  for (int i = 0; i < kCount; i += kTogether) {
    const auto run = *reinterpret_cast<const Pack<uint32_t, kTogether>*>(from + i * threads);
#pragma unroll
    for (int j = 0; j < kTogether; ++j) words[i + j] = run[j];
  }
}

// Packed parameters that a warp reads round by round: operands, of which every thread has its own words, and a line of
// words beside them, which threads with the same lane modulo four share.
template <int kLineWords, int kFactorWords>
class PackedRounds {
 public:
  struct Round {
    uint32_t line[kLineWords], factors[kFactorWords];
  };

  // Starts at round `first`.
  __device__ PackedRounds(const uint32_t* lines, const uint32_t* factors, int first, int lane)
      : lines_(lines + (first * 4 + lane % 4) * kLineWords),
        factors_(factors + first * 32 * kFactorWords + lane * at_once(kFactorWords)) {}

  __device__ void load(Round& round) {
    load_words(lines_, 4, round.line);
    load_words(factors_, 32, round.factors);
    lines_ += 4 * kLineWords, factors_ += 32 * kFactorWords;
  }

 private:
  const uint32_t *lines_, *factors_;
};

// A round of channels of the thread's two pixels.
template <typename Patches>
struct PatchChannels {
  uint32_t of[2][2 * Patches::kSteps];

  __device__ PatchChannels(const void* first, const void* second) {
    using Run = Pack<uint32_t, 2 * Patches::kSteps>;
    const Run runs[2] = {*static_cast<const Run*>(first), *static_cast<const Run*>(second)};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < 2 * Patches::kSteps; ++i) of[half][i] = runs[half][i];
    }
  }
  // The first of a thread's channels of a pixel.
  static __device__ int first(int part, int pair) {
    return part * 32 + (Patches::kTaps > 1 ? 0 : pair * 4 * Patches::kSteps);
  }
};

// The hidden layer's sums over a warp's part of the features, step by step; parameters are prefetched one step ahead.
template <typename T, typename Patches>
class HiddenSums {
 public:
  float of[Patches::kWeightTiles][4] = {};

  __device__ HiddenSums(const PackedPatches& packed, const uint32_t* memory, int part, int lane)
      : rounds_(memory + packed.norms, memory, part * (1 + packed.rounds) * Patches::kSteps, lane) {
    rounds_.load(steps_[0]);
  }

  __device__ void add(const PatchChannels<Patches>& channels) {
#pragma unroll
    for (int i = 0; i < Patches::kSteps; ++i) {
      rounds_.load(steps_[(i + 1) % 2]);
      const auto& step = steps_[i % 2];
      uint32_t left[4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int word = 0; word < 2; ++word) {
          left[2 * word + half] =
              packed_multiply_add_relu<T>(channels.of[half][2 * i + word], step.line[word], step.line[2 + word]);
        }
      }
#pragma unroll
      for (int weight_tile = 0; weight_tile < Patches::kWeightTiles; ++weight_tile) {
        multiply_accumulate<T>(of[weight_tile], left, &step.factors[2 * weight_tile]);
      }
    }
    if constexpr (Patches::kSteps % 2 == 1) steps_[0] = steps_[1];
  }

 private:
  using Rounds = PackedRounds<Patches::kNormWords, Patches::kHiddenWords>;
  Rounds rounds_;
  typename Rounds::Round steps_[2];
};

// The hidden layer of a tile as left fragments: per eight channels, a word of the first row's pixel and one of the
// second row's. `memory` is a buffer for the sums of the warps that share the tile, `bytes` apart.
template <typename T, typename Patches>
struct HiddenWords {
  uint32_t of[Patches::kWeightTiles][2];

  __device__ HiddenWords(const HiddenSums<T, Patches>& sums, const float* bias, unsigned char* memory, int bytes,
                         int part, const BandedTile& tile) {
    constexpr bool kShared = Patches::kParts > 1;
    const auto place = [&](int of_part, int weight_tile) {
      return reinterpret_cast<Pack<float, 4>*>(memory + of_part * bytes) + weight_tile * 32 + tile.lane;
    };
    if constexpr (kShared) {
#pragma unroll
      for (int weight_tile = 0; weight_tile < Patches::kWeightTiles; ++weight_tile) {
        *place(part, weight_tile) = {sums.of[weight_tile][0], sums.of[weight_tile][1], sums.of[weight_tile][2],
                                     sums.of[weight_tile][3]};
      }
      __syncthreads();
    }
#pragma unroll
    for (int weight_tile = 0; weight_tile < Patches::kWeightTiles; ++weight_tile) {
      const int channel = 8 * weight_tile + 2 * tile.pair();
      float all[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        all[i] = kShared ? 0 : sums.of[weight_tile][i];
        if (channel < Patches::kWeights) all[i] += bias[channel + i % 2];
      }
      if constexpr (kShared) {
#pragma unroll
        for (int from = 0; from < Patches::kParts; ++from) {
          const Pack<float, 4> four = *place(from, weight_tile);
#pragma unroll
          for (int i = 0; i < 4; ++i) all[i] += four[i];
        }
      }
      of[weight_tile][0] = pack_relu<T>(all[0], all[1]), of[weight_tile][1] = pack_relu<T>(all[2], all[3]);
    }
    if constexpr (kShared) __syncthreads();  // the buffer is reused
  }
};

// The weights of a warp, round by round; parameters are prefetched one round ahead.
template <typename T, typename Patches>
class PatchWeights {
 public:
  __device__ PatchWeights(const PackedPatches& packed, const uint32_t* memory, int group, int lane)
      : rounds_(memory + packed.biases, memory + packed.weights, group * packed.rounds, lane) {
    rounds_.load(next_);
  }

  // Two weights of the first row's pixel, and two of the second row's.
  __device__ void find(const HiddenWords<T, Patches>& hidden, uint32_t (&words)[2]) {
    const auto round = next_;
    rounds_.load(next_);
    float sums[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[i] = __uint_as_float(round.line[i % 2]);
    if constexpr (Patches::kWeightTiles == 1) {
      multiply_accumulate_half_step<T>(sums, hidden.of[0], round.factors[0]);
    } else {
#pragma unroll
      for (int i = 0; i < Patches::kWeightTiles; i += 2) {
        const uint32_t left[4] = {hidden.of[i][0], hidden.of[i][1], hidden.of[i + 1][0], hidden.of[i + 1][1]};
        multiply_accumulate<T>(sums, left, &round.factors[i]);
      }
    }
    words[0] = pack_finite<T>(sums[0], sums[1]), words[1] = pack_finite<T>(sums[2], sums[3]);
  }

 private:
  using Rounds = PackedRounds<Patches::kBiasWords, Patches::kWeightWords>;
  Rounds rounds_;
  typename Rounds::Round next_;
};

}  // namespace sa_layers::cuda
