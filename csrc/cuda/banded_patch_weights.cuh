// The second layer of patchwise attention's mapping: from the hidden layer in registers to the weights of a tap.
#pragma once

#include "cuda/banded_patches.cuh"

namespace sa_layers::cuda {

// The weights of a warp in rounds, whose factors are loaded one in advance.
template <typename T, typename Patches>
class PatchWeights {
 public:
  __device__ PatchWeights(const PackedPatches& packed, const uint32_t* memory, int group, int lane)
      : rounds_(memory + packed.biases, memory + packed.weights, group * packed.rounds, lane) {
    rounds_.load(next_);
  }

  // Two weights of the pixel in the first row, and of the one in the second.
  __device__ void find(const HiddenWords<T, Patches>& hidden, uint32_t (&words)[2]) {
    const auto round = next_;
    rounds_.load(next_);
    float sums[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[i] = __uint_as_float(round.line[i % 2]);
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
  using Rounds = PackedRounds<Patches::kBiasWords, Patches::kWeightWords>;
  Rounds rounds_;
  typename Rounds::Round next_;
};

}  // namespace sa_layers::cuda
