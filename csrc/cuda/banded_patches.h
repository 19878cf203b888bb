// The mapping of patchwise attention as its banded kernel reads it: in half precision, and in the order in which the
// threads of a warp have the fragments of tensor cores. Plain C++.
//
// A round is what a step of a warp along a row of taps takes: one tap, or four where they have four channels, one for
// each of the four threads of a pixel. The first round of the hidden layer is the query. A thread has the channels of
// its pixel side by side, whichever features of a fragment they are, since sums do not depend on their order.
#pragma once

#include "cuda/banded_plan.h"

namespace sa_layers::cuda {

// The widths of an attention, and what follows from them. Counts of words are those of a thread, of 32 bits.
template <int kChannels_, int kWeights_>
struct BandedPatches {
  static constexpr int kChannels = kChannels_, kWeights = kWeights_;
  static constexpr int kParts = kChannels < 32 ? 1 : kChannels / 32;  // warps of a tile, some channels and weights each
  static constexpr int kSteps = kChannels < 32 ? 1 : 2;               // of sixteen features, in a round of a warp
  static constexpr int kTaps = kChannels < 16 ? 16 / kChannels : 1;   // of a round
  static constexpr int kGroup = kWeights < 8 ? kWeights : 8;          // weights that a warp has at a time
  static constexpr int kPhaseWeights = kGroup * kParts, kPhases = kWeights / kPhaseWeights;
  static constexpr int kEights = (kWeights + 7) / 8;  // of the hidden channels
  static constexpr int kHiddenWords = 2 * kEights;    // of a step
  static constexpr int kNormWords = 4;                // of a step
  static constexpr int kWeightWords = kEights;        // of a round
  static constexpr int kBiasWords = 2;                // of a round
  // Of shared memory, in bytes. Several pixels are read at once: eight threads must meet no bank twice.
  static constexpr int kKeyStride = kChannels == 4 ? 16 : kChannels <= 32 ? kChannels * 2 : kChannels * 2 + 64;
  static constexpr int kValueStride = kPhaseWeights * 16 + 16;
  static constexpr int kUsualWidth = kChannels < 16 ? 3 : 7;  // of SAN's footprints, which have code of their own
  // Rounds that are unrolled: those whose operands registers have room for.
  static constexpr int kFeaturesTogether = kChannels < 16 ? 8 : 128 / kChannels;
  static constexpr int kWeightsTogether = kEights > 4 ? 2 : 8;
  static_assert(kWeights % kPhaseWeights == 0 && kTaps * kGroup <= 8 && 8 % kGroup == 0);
};

// Where its parts lie, in words. What is read in advance behind the last one is there, too.
struct PackedPatches {
  int row_rounds, rounds;  // of a row of taps, of all
  int norms, weights, biases, end, words;
};

template <typename Patches>
PackedPatches pack_of(const Footprint& footprint) {
  PackedPatches packed = {};
  packed.row_rounds = (int(footprint.columns.kernel) + Patches::kTaps - 1) / Patches::kTaps;
  packed.rounds = int(footprint.rows.kernel) * packed.row_rounds;
  const int steps = Patches::kParts * (1 + packed.rounds) * Patches::kSteps;
  const int groups = Patches::kPhases * Patches::kParts * packed.rounds;
  packed.norms = steps * 32 * Patches::kHiddenWords;
  packed.weights = packed.norms + steps * 4 * Patches::kNormWords;
  packed.biases = packed.weights + groups * 32 * Patches::kWeightWords;
  packed.end = packed.biases + groups * 4 * Patches::kBiasWords;
  packed.words = packed.end + 32 * Patches::kHiddenWords;
  return packed;
}

// Words of a thread that it reads at once.
SA_LAYERS_HOST_DEVICE constexpr int at_once(int words) { return words < 4 ? words : 4; }

}  // namespace sa_layers::cuda
