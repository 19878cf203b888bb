// Packs the mapping of patchwise attention for its banded kernel, a thread for a word.
#pragma once

#include "cuda/banded_factors.cuh"
#include "cuda/banded_patches.h"
#include "cuda/thread_index.cuh"

namespace sa_layers::cuda {

// The mapping's tensors, of the shapes that library.cpp gives.
struct PatchParameters {
  const float *scale, *shift, *hidden_weight, *weight, *bias;
};

// What a word belongs to, in order [before][run of words][thread][word of the run].
template <int kThreads, int kWords>
struct PackedWord {
  int before, thread, word;

  __device__ explicit PackedWord(int index) {
    constexpr int kTogether = at_once(kWords), kRuns = kWords / kTogether;
    const int run = index / kTogether / kThreads;
    before = run / kRuns, thread = index / kTogether % kThreads, word = run % kRuns * kTogether + index % kTogether;
  }
};

// A tap of a round along a row; -1 behind the last one.
template <typename Patches>
__device__ int tap_of_round(const PackedPatches& packed, int kernel_width, int round, int of_round) {
  const int column = round % packed.row_rounds * Patches::kTaps + of_round;
  return column < kernel_width ? round / packed.row_rounds * kernel_width + column : -1;
}

// Of a step of the hidden layer, the features of a thread that make up its first or second word.
struct PackedFeatures {
  int first;
  bool is_there;  // or a tap behind the last one stands in, whose factors are zeros
};

template <typename Patches>
__device__ PackedFeatures features_of_step(const PackedPatches& packed, int kernel_width, int step, int thread,
                                           int half) {
  constexpr bool kSeveral = Patches::kTaps > 1;
  const int of_round = step % Patches::kSteps, round = step / Patches::kSteps % (1 + packed.rounds);
  const int part = step / Patches::kSteps / (1 + packed.rounds);
  const int channel = part * 32 + (kSeveral ? 0 : thread * 4 * Patches::kSteps) + 4 * of_round + 2 * half;
  if (round == 0) return {channel, !kSeveral || thread == 0};
  const int of_row = kSeveral ? thread : 0;
  int tap = tap_of_round<Patches>(packed, kernel_width, round - 1, of_row);
  const bool is_there = tap >= 0;
  for (int before = of_row - 1; tap < 0; --before) {
    tap = tap_of_round<Patches>(packed, kernel_width, round - 1, before);
  }
  return {(1 + tap) * Patches::kChannels + channel, is_there};
}

template <typename T, typename Patches>
__device__ uint32_t pack_hidden(const PackedPatches& packed, int kernel_width, const PatchParameters& from, int index) {
  const PackedWord<32, Patches::kHiddenWords> word(index);
  const auto features = features_of_step<Patches>(packed, kernel_width, word.before, word.thread % 4, word.word % 2);
  const int output = word.word / 2 * 8 + word.thread / 4;
  if (!features.is_there || output >= Patches::kWeights) return 0;
  const float* const matrix = from.hidden_weight + int64_t(features.first) * Patches::kWeights + output;
  return pack_factors<T>(matrix[0], matrix[Patches::kWeights]);
}

// Scale for both words of the features, then shift.
template <typename T, typename Patches>
__device__ uint32_t pack_norm(const PackedPatches& packed, int kernel_width, const PatchParameters& from, int index) {
  const PackedWord<4, Patches::kNormWords> word(index);
  const auto features = features_of_step<Patches>(packed, kernel_width, word.before, word.thread, word.word % 2);
  const float* const numbers = (word.word < 2 ? from.scale : from.shift) + features.first;
  return pack_factors<T>(numbers[0], numbers[1]);
}

// The weight of a column of eight in a round, and its tap.
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
__device__ uint32_t pack_weight(const PackedPatches& packed, int kernel_width, int taps, const PatchParameters& from,
                                int index) {
  const PackedWord<32, Patches::kWeightWords> word(index);
  const PackedColumn<Patches> column(packed, kernel_width, word.before, word.thread / 4);
  const int input = 8 * word.word + word.thread % 4 * 2;
  if (column.tap < 0 || input >= Patches::kWeights) return 0;
  const int64_t row = int64_t(taps) * Patches::kWeights;
  const float* const matrix = from.weight + input * row + column.tap * Patches::kWeights + column.weight;
  return pack_factors<T>(matrix[0], matrix[row]);
}

template <typename Patches>
__device__ float pack_bias(const PackedPatches& packed, int kernel_width, const PatchParameters& from, int index) {
  const PackedWord<4, Patches::kBiasWords> word(index);
  const PackedColumn<Patches> column(packed, kernel_width, word.before, word.thread * 2 + word.word);
  return column.tap < 0 ? 0 : from.bias[column.tap * Patches::kWeights + column.weight];
}

template <typename T, typename Patches>
__global__ void pack_patches(const __grid_constant__ PackedPatches packed, const __grid_constant__ Footprint footprint,
                             const __grid_constant__ PatchParameters from, uint32_t* to) {
  if constexpr (has_tensor_cores<__nv_bfloat16>()) {
    const int index = int(thread_index());
    const int width = int(footprint.columns.kernel), taps = int(footprint.taps());
    if (index >= packed.words) return;
    if (index >= packed.end) {
      to[index] = 0;  // is read in advance, and used for nothing
    } else if (index < packed.norms) {
      to[index] = pack_hidden<T, Patches>(packed, width, from, index);
    } else if (index < packed.weights) {
      to[index] = pack_norm<T, Patches>(packed, width, from, index - packed.norms);
    } else if (index < packed.biases) {
      to[index] = pack_weight<T, Patches>(packed, width, taps, from, index - packed.weights);
    } else {
      reinterpret_cast<float*>(to)[index] = pack_bias<Patches>(packed, width, from, index - packed.biases);
    }
  }
}

}  // namespace sa_layers::cuda
