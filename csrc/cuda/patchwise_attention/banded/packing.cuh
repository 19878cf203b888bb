// The mapping of patchwise attention as its banded kernel reads it, and the kernel that packs it, one thread per word:
// half precision, in the order in which the threads of a warp hold the fragments of tensor cores.
//
// A round is one step of a warp along a row of taps: one tap, or four if they have four channels, one for each of the
// four threads of a pixel. The first round of the hidden layer is the query. A thread holds contiguous channels of its
// pixel, whichever features of a fragment they are, since sums do not depend on their order.
#pragma once

#include <cstdint>

#include "cuda/common/factor.cuh"
#include "cuda/common/launch.cuh"
#include "cuda/common/mma.cuh"
#include "cuda/patchwise_attention/parameters.cuh"
#include "footprint.h"

namespace sa_layers::cuda {

// The widths of an attention and what follows from them. Words are of 32 bits, and counted per thread.
template <int kChannels_, int kWeights_>
struct BandedPatches {
  static constexpr int kChannels = kChannels_, kWeights = kWeights_;
  static constexpr int kParts =
      kChannels < 32 ? 1 : kChannels / 32;               // warps that share a tile, each with some channels and weights
  static constexpr int kSteps = kChannels < 32 ? 1 : 2;  // of sixteen features, per round of a warp
  static constexpr int kTaps = kChannels < 16 ? 16 / kChannels : 1;  // per round
  static constexpr int kGroup = kWeights < 8 ? kWeights : 8;         // weights that a warp processes at a time
  static constexpr int kPhaseWeights = kGroup * kParts, kPhases = kWeights / kPhaseWeights;
  static constexpr int kWeightTiles = (kWeights + 7) / 8;  // of the hidden channels
  static constexpr int kHiddenWords = 2 * kWeightTiles;    // per step
  static constexpr int kNormWords = 4;                     // per step
  static constexpr int kWeightWords = kWeightTiles;        // per round
  static constexpr int kBiasWords = 2;                     // per round
  // In bytes of shared memory. Several pixels are read at once, and eight threads must hit different banks.
  static constexpr int kKeyStride = kChannels == 4 ? 16 : kChannels <= 32 ? kChannels * 2 : kChannels * 2 + 64;
  static constexpr int kValueStride = kPhaseWeights * 16 + 16;
  static constexpr int kUsualWidth = kChannels < 16 ? 3 : 7;  // in SAN, which has specialized code
  // Rounds that are unrolled, limited by registers.
  static constexpr int kFeaturesTogether = kChannels < 16 ? 8 : 128 / kChannels;
  static constexpr int kWeightsTogether = kWeightTiles > 4 ? 2 : 8;
  static_assert(kWeights % kPhaseWeights == 0 && kTaps * kGroup <= 8 && 8 % kGroup == 0);
};

// The layout, in words; it includes what is prefetched after the last step. The hidden layer's bias, in float32, is
// behind it.
struct PackedPatches {
  int row_rounds, rounds;  // per row of taps; of all
  int norms, weights, biases, end, words;
};

template <typename Patches>
PackedPatches pack_of(const Footprint& footprint) {
  PackedPatches packed = {};
  packed.row_rounds = int(ceil_div<int64_t>(footprint.columns.kernel, Patches::kTaps));
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

// The words that a thread loads at once.
SA_LAYERS_HOST_DEVICE constexpr int at_once(int words) { return words < 4 ? words : 4; }

// Decodes the index of a word in the layout [before][run of words][thread][word of the run].
template <int kThreads, int kWords>
struct PackedWord {
  int before, thread, word;

  __device__ explicit PackedWord(int index) {
    constexpr int kTogether = at_once(kWords), kRuns = kWords / kTogether;
    const int run = index / kTogether / kThreads;
    before = run / kRuns, thread = index / kTogether % kThreads, word = run % kRuns * kTogether + index % kTogether;
  }
};

// The tap number `of_round` of a round; -1 after the last one of a row.
template <typename Patches>
__device__ int tap_of_round(const PackedPatches& packed, int kernel_width, int round, int of_round) {
  const int column = round % packed.row_rounds * Patches::kTaps + of_round;
  return column < kernel_width ? round / packed.row_rounds * kernel_width + column : -1;
}

// The two features in a thread's first or second word of a step of the hidden layer: a channel of a tap, and the next.
struct PackedFeatures {
  int tap, channel;  // tap 0 is the query
  bool is_there;     // false: padding after the last tap, with zero operands
};

template <typename Patches>
__device__ PackedFeatures features_of_step(const PackedPatches& packed, int kernel_width, int step, int thread,
                                           int half) {
  constexpr bool kSeveral = Patches::kTaps > 1;
  const int of_round = step % Patches::kSteps, round = step / Patches::kSteps % (1 + packed.rounds);
  const int part = step / Patches::kSteps / (1 + packed.rounds);
  const int channel = part * 32 + (kSeveral ? 0 : thread * 4 * Patches::kSteps) + 4 * of_round + 2 * half;
  if (round == 0) return {0, channel, !kSeveral || thread == 0};
  const int of_row = kSeveral ? thread : 0;
  int tap = tap_of_round<Patches>(packed, kernel_width, round - 1, of_row);
  const bool is_there = tap >= 0;
  for (int before = of_row - 1; tap < 0; --before) {
    tap = tap_of_round<Patches>(packed, kernel_width, round - 1, before);
  }
  return {1 + tap, channel, is_there};
}

template <typename T, typename Patches>
__device__ uint32_t pack_hidden(const PackedPatches& packed, int kernel_width, const PatchwiseParameters<T>& from,
                                int index) {
  const PackedWord<32, Patches::kHiddenWords> word(index);
  const auto features = features_of_step<Patches>(packed, kernel_width, word.before, word.thread % 4, word.word % 2);
  const int output = word.word / 2 * 8 + word.thread / 4;
  if (!features.is_there || output >= Patches::kWeights) return 0;
  return pack_factors<T>(from.hidden_weight(features.tap, features.channel, output),
                         from.hidden_weight(features.tap, features.channel + 1, output));
}

// The scale of both words of the features, then the shift.
template <typename T, typename Patches>
__device__ uint32_t pack_norm(const PackedPatches& packed, int kernel_width, const PatchwiseParameters<T>& from,
                              int index) {
  const PackedWord<4, Patches::kNormWords> word(index);
  const auto features = features_of_step<Patches>(packed, kernel_width, word.before, word.thread, word.word % 2);
  const int tap = features.tap, channel = features.channel;
  if (word.word < 2) return pack_factors<T>(from.scale(tap, channel), from.scale(tap, channel + 1));
  return pack_factors<T>(from.shift(tap, channel), from.shift(tap, channel + 1));
}

// The weight and the tap of one of the eight columns of a round.
template <typename Patches>
struct PackedColumn {
  int weight, tap;

  __device__ PackedColumn(const PackedPatches& packed, int kernel_width, int group_and_round, int column) {
    const int round = group_and_round % packed.rounds, group = group_and_round / packed.rounds;
    weight = group * Patches::kGroup + column % Patches::kGroup;
    tap = tap_of_round<Patches>(packed, kernel_width, round, column / Patches::kGroup);
  }
};

template <typename T, typename Patches>
__device__ uint32_t pack_weight(const PackedPatches& packed, int kernel_width, const PatchwiseParameters<T>& from,
                                int index) {
  const PackedWord<32, Patches::kWeightWords> word(index);
  const PackedColumn<Patches> column(packed, kernel_width, word.before, word.thread / 4);
  const int input = 8 * word.word + word.thread % 4 * 2;
  if (column.tap < 0 || input >= Patches::kWeights) return 0;
  return pack_factors<T>(from.weight(input, column.tap, column.weight),
                         from.weight(input + 1, column.tap, column.weight));
}

template <typename T, typename Patches>
__device__ float pack_bias(const PackedPatches& packed, int kernel_width, const PatchwiseParameters<T>& from,
                           int index) {
  const PackedWord<4, Patches::kBiasWords> word(index);
  const PackedColumn<Patches> column(packed, kernel_width, word.before, word.thread * 2 + word.word);
  return column.tap < 0 ? 0 : from.bias(column.tap, column.weight);
}

template <typename T, typename Patches>
__global__ void pack_patches(const __grid_constant__ PackedPatches packed,
                             const __grid_constant__ PatchwiseParameters<T> from, uint32_t* to) {
  if constexpr (has_tensor_cores<__nv_bfloat16>()) {
    const int index = int(thread_index());
    const int width = int(from.problem.footprint.columns.kernel);
    if (index >= packed.words + Patches::kWeights) return;
    if (index >= packed.words) {
      reinterpret_cast<float*>(to)[index] = from.hidden_bias(index - packed.words);
    } else if (index >= packed.end) {
      to[index] = 0;  // prefetched and not used
    } else if (index < packed.norms) {
      to[index] = pack_hidden<T, Patches>(packed, width, from, index);
    } else if (index < packed.weights) {
      to[index] = pack_norm<T, Patches>(packed, width, from, index - packed.norms);
    } else if (index < packed.biases) {
      to[index] = pack_weight<T, Patches>(packed, width, from, index - packed.weights);
    } else {
      reinterpret_cast<float*>(to)[index] = pack_bias<T, Patches>(packed, width, from, index - packed.biases);
    }
  }
}

}  // namespace sa_layers::cuda
