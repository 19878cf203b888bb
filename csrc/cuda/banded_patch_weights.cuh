// The second layer of patchwise attention's mapping: from the hidden layer in registers to the weights of a tap.
#pragma once

#include "cuda/banded_patches.cuh"

namespace sa_layers::cuda {

// The weights of a warp in rounds, whose factors are loaded one in advance.
template <typename T, typename Patches>
class PatchWeights {
 public:
  __device__ PatchWeights(const PackedPatches& packed, const uint32_t* memory, int group, int lane) {
    const int rounds = group * packed.rounds;
    factors_ = memory + packed.weights + rounds * 32 * Patches::kWeightWords + lane * at_once(Patches::kWeightWords);
    biases_ = memory + packed.biases + (rounds * 4 + lane % 4) * Patches::kBiasWords;
    load(next_);
  }

  // Two weights of the pixel in the first row, and of the one in the second.
  __device__ void find(const HiddenWords<T, Patches>& hidden, uint32_t (&words)[2]) {
    const Round round = next_;
    load(next_);
    float sums[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[i] = __uint_as_float(round.biases[i % 2]);
    if constexpr (Patches::kEights == 1) {
      multiply_accumulate_half_step<T>(sums, hidden.of[0], round.factors[0]);
    } else {
#pragma unroll
      for (int i = 0; i < Patches::kEights; i += 2) {
        const uint32_t left[4] = {hidden.of[i][0], hidden.of[i][1], hidden.of[i + 1][0], hidden.of[i + 1][1]};
        multiply_accumulate<T>(sums, left, &round.factors[i]);
      }
    }
    words[0] = pack_finite<T>(sums[0], sums[1]), words[1] = pack_finite<T>(sums[2], sums[3]);
  }

 private:
  struct Round {
    uint32_t biases[Patches::kBiasWords], factors[Patches::kWeightWords];
  };

  __device__ void load(Round& round) {
    load_words(biases_, 4, round.biases);
    load_words(factors_, 32, round.factors);
    biases_ += 4 * Patches::kBiasWords, factors_ += 32 * Patches::kWeightWords;
  }

  const uint32_t *factors_, *biases_;
  Round next_;
};

}  // namespace sa_layers::cuda
