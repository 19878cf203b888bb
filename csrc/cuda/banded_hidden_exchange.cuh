// The hidden layer of pairwise attention, which warps of a tile compute for each other, each for some taps: wide layers
// would be computed for every group of weights otherwise.
#pragma once

#include "cuda/banded_pairs.cuh"
#include "cuda/words.cuh"

namespace sa_layers::cuda {

template <typename T, typename Mapping>
class HiddenExchange {
 public:
  static constexpr int kParts = Mapping::kParts, kOwn = Mapping::kTapsAtOnce;
  static constexpr int kTaps = kParts * kOwn;  // of a round
  static constexpr int kPieces = Mapping::kHidden / 16, kPieceBytes = 32 * 16;
  static constexpr int kBytes = kParts == 1 ? 0 : kTaps * kPieces * kPieceBytes + 16;

  __device__ HiddenExchange(unsigned char* memory, int tile, int part, int lane)
      : place_(memory + 16 * lane), flags_(reinterpret_cast<int*>(memory + kBytes - 16)), tile_(tile), part_(part) {}

  __device__ int own_tap(int i) const { return part_ * kOwn + i; }
  // Sixteen hidden channels of a tap of the round.
  __device__ void store(int tap, int sixteen, const uint32_t (&words)[4]) const {
    *reinterpret_cast<Words<4>*>(place_ +
                                 (tap * kPieces + sixteen) * kPieceBytes) = {{words[0], words[1], words[2], words[3]}};
  }
  __device__ void load(int tap, int sixteen, uint32_t (&words)[4]) const {
    const auto piece = *reinterpret_cast<const Words<4>*>(place_ + (tap * kPieces + sixteen) * kPieceBytes);
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = piece.of[i];
  }
  // Waits for the warps of the tile.
  __device__ void synchronise() const { synchronise_warps(1 + tile_, kParts); }
  // Whether it holds for one of them.
  __device__ bool any(bool holds) const {
    if constexpr (kParts == 1) return holds;
    if (threadIdx.x % 32 == 0) flags_[part_] = holds;
    synchronise();
    bool found = false;
#pragma unroll
    for (int i = 0; i < kParts; ++i) found |= flags_[i] != 0;
    return found;
  }

 private:
  unsigned char* place_;
  int* flags_;
  int tile_, part_;
};

}  // namespace sa_layers::cuda
