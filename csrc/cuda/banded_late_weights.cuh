// A warp's weights of a row of taps as bands of matrices, where both rows of its output pixels have the same taps: the
// second row falls on the map one row lower, so that its half of a matrix is used a step later.
#pragma once

#include "cuda/banded_weights.cuh"

namespace sa_layers::cuda {

// kWeights matrices of 16 pixels and 16 columns as in Bands: the half of the first row of pixels, and two of the second
// row that take turns.
template <typename T, int kWeights>
class LateBands {
 public:
  static constexpr int kStride = kWeights * kBandColumns * int(sizeof(T)) + 16;
  static constexpr int kHalf = kTileColumns * kStride, kBytes = 3 * kHalf;

  __device__ LateBands(unsigned char* memory, const BandedTile& tile) : memory_(memory), lane_(tile.lane) {
    // A thread has two of eight weights of a tap, or two weights of a tap of its own.
    constexpr int kPlace = kWeights < 8 ? int(sizeof(T)) : kBandColumns * int(sizeof(T));
    to_ = memory + tile.pixel() * (kStride + int(sizeof(T))) + tile.pair() * kPlace;
    from_ = memory + tile.lane % 8 * kStride + tile.lane / 16 * 16;
  }

  __device__ void clear() const { clear(kBytes); }
  // Behind the last row of taps there is only the second row of pixels.
  __device__ void clear_first() const { clear(kHalf); }

  // Two weights of the thread's pixel in a row of two, at a column of taps. `turn` is that of the step, 0 or 1.
  __device__ void store(int row, int turn, int column_tap, uint32_t two) const {
    unsigned char* const to = to_ + (row == 0 ? 0 : (1 + turn) * kHalf) + column_tap * int(sizeof(T));
    *reinterpret_cast<uint16_t*>(to) = uint16_t(two);
    *reinterpret_cast<uint16_t*>(to + place(1) * kBandColumns * int(sizeof(T))) = uint16_t(two >> 16);
  }

  // Adds a row of the map, with the second row's weights of the step before. `column` is where the thread's value of
  // the first sharing channel lies, see value_column.
  __device__ void add(int turn, const unsigned char* column, BandedSums<kWeights>& sums) const {
    const unsigned char* const band = from_ + (lane_ % 16 < 8 ? 0 : (2 - turn) * kHalf);
    sums.template add<T>(band, [](int weight) { return place(weight) * kBandColumns * int(sizeof(T)); }, column);
  }

 private:
  // Even weights, then odd ones: the threads of a pixel write to different banks.
  static constexpr __device__ int place(int weight) {
    return kWeights < 8 ? weight : weight % 2 * (kWeights / 2) + weight / 2;
  }
  __device__ void clear(int bytes) const {
#pragma unroll 1
    for (int at = 16 * lane_; at < bytes; at += 16 * 32) *reinterpret_cast<Eight<T>*>(memory_ + at) = {};
  }

  unsigned char *memory_, *to_;
  const unsigned char* from_;
  int lane_;
};

}  // namespace sa_layers::cuda
