// The mapping of pairwise attention as the banded kernel has it: norm and matrices in shared memory, in half precision.
#pragma once

#include "cuda/banded_factors.cuh"
#include "cuda/banded_weights.cuh"
#include "cuda/pairs.cuh"

namespace sa_layers::cuda {

// The mapping: from kChannels of the relation, two of the position and a one for the bias to kHidden channels, and from
// these to kWeights logits, without a bias, which a softmax does not see. Strides are bytes, an odd number of sixteens.
template <int kChannels_, int kWeights_>
struct BandedMapping {
  static constexpr int kChannels = kChannels_, kWeights = kWeights_;
  // Steps of eight features; the last one has the positions, too, and two for the bias.
  static constexpr int kSteps = kChannels < 8 ? 1 : kChannels / 8 + 1, kDoubleSteps = kSteps / 2;
  static constexpr int kHidden = kChannels < 8 ? 8 : kChannels, kEights = (kWeights + 7) / 8;
  static constexpr int kHiddenStride = kSteps * 16, kWeightStride = kHidden * 2 + (kHidden > 8 ? 16 : 0);
  // So many warps share a tile: each computes the hidden layer of some taps for all, and has weights of its own.
  static constexpr int kParts = kChannels < 64 ? 1 : kChannels / 32, kAllWeights = kParts * kWeights;
  static constexpr int kKeyStride = kChannels < 8 ? 16 : kChannels * 2 + 16, kValueStride = kAllWeights * 16 + 16;
  // Of shared memory: scale and shift in pairs of channels, and both matrices, (output, input).
  static constexpr int kNormBytes = kChannels * 4, kHiddenBytes = kHidden * kHiddenStride;
  static constexpr int kBytes = kNormBytes + kHiddenBytes + kParts * kEights * 8 * kWeightStride;
  // Taps whose products are computed together, as many as registers have room for.
  static constexpr int kTapsAtOnce = kChannels < 8 ? 3 : kChannels < 128 ? 2 : 1;
  // Of the kernels of SAN, which have code of their own unless it would be very long.
  static constexpr int kUsualWidth = kChannels < 8 ? 3 : kChannels < 64 ? 7 : 0;
  static constexpr int kPositionPair = kChannels % 8 / 2;  // of the last step
  static_assert(kSteps % 2 == 1 && (kHidden == 8 || kHidden % 16 == 0));
};

// Copies norm and matrices of the weights from `first_weight`.
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
    if (output < kChannels && (input == kChannels + 2 || input == kChannels + 3)) {  // the bias, and what rounding lost
      const float bias = operands.biases[0][output];
      factor = factor_of<T>(bias);
      if (input == kChannels + 3) factor = factor_of<T>(bias - widen(factor));
    }
    hidden[item] = factor;
  }
  unsigned char* const weight = to + Mapping::kNormBytes + Mapping::kHiddenBytes;
  constexpr int kRows = 8 * Mapping::kEights * Mapping::kParts;
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

// Pieces of the two matrices as tensor cores read them; those of small mappings stay in registers.
template <typename Mapping>
class MappingMatrices {
 public:
  __device__ MappingMatrices(const unsigned char* memory, int part, int lane) {
    const unsigned char* const hidden = memory + Mapping::kNormBytes;
    // Of four pieces: eight outputs, their next inputs, then the same of the next eight outputs.
    const int output = lane / 16 * 8 + lane % 8, next = lane / 8 % 2;
    hidden_ = hidden + output * Mapping::kHiddenStride + next * 16;
    // Of two pieces: eight outputs, then the next.
    last_ = hidden + lane % (Mapping::kHidden < 16 ? 8 : 16) * Mapping::kHiddenStride + 32 * Mapping::kDoubleSteps;
    const int weight = part * Mapping::kWeights + (Mapping::kEights > 1 ? output : lane % 8);
    weights_ =
        hidden + Mapping::kHiddenBytes + weight * Mapping::kWeightStride + (Mapping::kHidden > 8 ? next * 16 : 0);
    if constexpr (kKept) {
#pragma unroll
      for (int step = 0; step < Mapping::kDoubleSteps; ++step) load_matrices(hidden_ + 32 * step, kept_hidden_[step]);
      load_matrices(last_, kept_last_);
      load_matrices(weights_, kept_weights_);
    }
  }
  // Sixteen hidden channels, of a double step of the features.
  __device__ void hidden(int sixteen, int step, uint32_t (&words)[4]) const {
    if constexpr (kKept) {
#pragma unroll
      for (int i = 0; i < 4; ++i) words[i] = kept_hidden_[step][i];
    } else {
      load_matrices(hidden_ + sixteen * 16 * Mapping::kHiddenStride + 32 * step, words);
    }
  }
  // The same, of the last step.
  __device__ void hidden(int sixteen, uint32_t (&words)[2]) const {
    if constexpr (kKept) {
      words[0] = kept_last_[0], words[1] = kept_last_[1];
    } else {
      load_matrices(last_ + sixteen * 16 * Mapping::kHiddenStride, words);
    }
  }
  // Eight or sixteen weights, of sixteen hidden channels.
  template <int kWords>
  __device__ void weights(int sixteen, uint32_t (&words)[kWords]) const {
    if constexpr (kKept) {
      words[0] = kept_weights_[0], words[1] = kept_weights_[1];
    } else if constexpr (Mapping::kEights > 1) {
      load_matrices(weights_ + 32 * sixteen, words);
    } else {
      uint32_t two[2];
      load_matrices(weights_ + 32 * sixteen, two);
      words[0] = two[0], words[1] = two[1];
    }
  }

 private:
  static constexpr bool kKept = Mapping::kHidden <= 16 && Mapping::kEights == 1;
  const unsigned char *hidden_, *last_, *weights_;
  uint32_t kept_hidden_[kKept && Mapping::kDoubleSteps > 0 ? Mapping::kDoubleSteps : 1][4], kept_last_[2],
      kept_weights_[2];
};

// Scale and shift of a pair of channels.
struct alignas(8) PairNorm {
  uint32_t scale, shift;
};

}  // namespace sa_layers::cuda
