// The hidden layer of patchwise attention in registers, for maps of half precision on tensor cores, from the packed
// mapping (banded_patches.h).
#pragma once

#include "cuda/banded_patches.h"
#include "cuda/banded_weights.cuh"
#include "cuda/words.cuh"

namespace sa_layers::cuda {

// A thread's words, of which `threads` threads have some each; `from` are the thread's first.
template <int kCount>
__device__ void load_words(const uint32_t* from, int threads, uint32_t (&words)[kCount]) {
  constexpr int kTogether = at_once(kCount);
#pragma unroll
  for (int i = 0; i < kCount; i += kTogether) {
    const auto run = *reinterpret_cast<const Words<kTogether>*>(from + i * threads);
#pragma unroll
    for (int j = 0; j < kTogether; ++j) words[i + j] = run.of[j];
  }
}

// Factors of products and what goes with a line of them, of which a warp takes a round after the other: every thread
// has words of the factors; threads with one lane modulo four share those of a line.
template <int kLineWords, int kFactorWords>
class PackedRounds {
 public:
  struct Round {
    uint32_t line[kLineWords], factors[kFactorWords];
  };

  // From round `first` on, of those whose lines and factors begin there.
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

// Channels of the thread's two pixels, a round of them.
template <typename Patches>
struct PatchChannels {
  uint32_t of[2][2 * Patches::kSteps];

  __device__ PatchChannels(const void* first, const void* second) {
    using Run = Words<2 * Patches::kSteps>;
    const Run runs[2] = {*static_cast<const Run*>(first), *static_cast<const Run*>(second)};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < 2 * Patches::kSteps; ++i) of[half][i] = runs[half].of[i];
    }
  }
  // Where a thread's channels lie among those of a pixel.
  static __device__ int first(int part, int pair) {
    return part * 32 + (Patches::kTaps > 1 ? 0 : pair * 4 * Patches::kSteps);
  }
};

// The sums of a warp's part of the features, step by step; what the next step takes is loaded in advance.
template <typename T, typename Patches>
class HiddenSums {
 public:
  float of[Patches::kEights][4] = {};

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
      for (int eight = 0; eight < Patches::kEights; ++eight) {
        multiply_accumulate<T>(of[eight], left, &step.factors[2 * eight]);
      }
    }
    if constexpr (Patches::kSteps % 2 == 1) steps_[0] = steps_[1];
  }

 private:
  using Rounds = PackedRounds<Patches::kNormWords, Patches::kHiddenWords>;
  Rounds rounds_;
  typename Rounds::Round steps_[2];
};

// The hidden layer of a tile: of eights of channels, words of the pixel in the first row and in the second, as left
// factors. `memory` has room for the sums of the warps that share the tile, `bytes` apart.
template <typename T, typename Patches>
struct HiddenWords {
  uint32_t of[Patches::kEights][2];

  __device__ HiddenWords(const HiddenSums<T, Patches>& sums, const float* bias, unsigned char* memory, int bytes,
                         int part, const BandedTile& tile) {
    constexpr bool kShared = Patches::kParts > 1;
    struct alignas(16) FourSums {
      float of[4];
    };
    const auto place = [&](int of_part, int eight) {
      return reinterpret_cast<FourSums*>(memory + of_part * bytes) + eight * 32 + tile.lane;
    };
    if constexpr (kShared) {
#pragma unroll
      for (int eight = 0; eight < Patches::kEights; ++eight) {
        *place(part, eight) = {sums.of[eight][0], sums.of[eight][1], sums.of[eight][2], sums.of[eight][3]};
      }
      __syncthreads();
    }
#pragma unroll
    for (int eight = 0; eight < Patches::kEights; ++eight) {
      const int channel = 8 * eight + 2 * tile.pair();
      float all[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        all[i] = kShared ? 0 : sums.of[eight][i];
        if (channel < Patches::kWeights) all[i] += bias[channel + i % 2];
      }
      if constexpr (kShared) {
#pragma unroll
        for (int from = 0; from < Patches::kParts; ++from) {
          const FourSums four = *place(from, eight);
#pragma unroll
          for (int i = 0; i < 4; ++i) all[i] += four.of[i];
        }
      }
      of[eight][0] = pack_relu<T>(all[0], all[1]), of[eight][1] = pack_relu<T>(all[2], all[3]);
    }
    if constexpr (kShared) __syncthreads();  // something else takes their place
  }
};

}  // namespace sa_layers::cuda
