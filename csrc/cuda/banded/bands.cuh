// A warp's attention weights as bands of matrices in shared memory, and the tensor core products with the values.
// Shared by the banded kernels of pairwise and patchwise attention.
#pragma once

#include <cstdint>

#include "cuda/banded/plan.h"
#include "cuda/common/element.cuh"
#include "cuda/common/mma.cuh"
#include "cuda/common/pack.cuh"

namespace sa_layers::cuda {

// The output pixels of a warp. A thread has the pixels in column lane / 4 of both rows, as in tensor core fragments.
struct BandedTile {
  int row_tile, column_tile, lane;

  // Consecutive warps share a tile.
  __device__ explicit BandedTile(const BandedPlan& plan, int warps_of_tile = 1) : lane(int(threadIdx.x) % 32) {
    const int tile = int(threadIdx.x) / 32 / warps_of_tile;
    row_tile = tile / plan.column_tiles, column_tile = tile % plan.column_tiles;
  }
  __device__ int pixel() const { return lane / 4; }
  __device__ int pair() const { return lane % 4; }  // of weights or channels
};

// kWeights matrices of 16 pixels by 16 columns. Pixels are separated by 16 bytes of padding, so that eight of them lie
// in different banks. Of eight weights the even ones precede the odd ones, so that a warp's stores hit different banks,
// too.
template <typename T, int kWeights>
class Bands {
 public:
  static constexpr int kStride = kWeights * kBandColumns * int(sizeof(T)) + 16;
  static constexpr int kBytes = 2 * kTileColumns * kStride;

  __device__ Bands(unsigned char* memory, const BandedTile& tile)
      : memory_(memory),
        first_(memory + tile.pixel() * (kStride + 2) + tile.pair() * kBandColumns * 2),
        has_weights_(kWeights >= 8 || 2 * tile.pair() < kWeights) {}

  __device__ unsigned char* memory() const { return memory_; }
  // The zeros beside the bands are written once and never overwritten.
  __device__ void clear(int lane) const {
    for (int at = 16 * lane; at < kBytes; at += 16 * 32) *reinterpret_cast<Pack<T, 8>*>(memory_ + at) = {};
  }
  // Stores weights 2 * pair and 2 * pair + 1 of the eight of `weight_tile`, for a tap of the thread's pixel in the
  // tile's row 0 or 1.
  __device__ void store(int row, int weight_tile, int column_tap, float one, float other) const {
    if (!has_weights_) return;
    unsigned char* const to = first_ + 8 * row * kStride + 8 * weight_tile * kBandColumns * 2 + column_tap * 2;
    narrow(one, *reinterpret_cast<T*>(to)), narrow(other, *reinterpret_cast<T*>(to + offset(1)));
  }
  // The address that a thread passes to load_matrices.
  __device__ const unsigned char* row_of(int lane) const { return memory_ + lane % 16 * kStride + lane / 16 * 16; }
  // The offset of the matrix of a weight.
  static __device__ constexpr int offset(int weight) {
    constexpr int kOdd = kWeights < 8 ? kWeights / 2 : 4;
    return (weight / 8 * 8 + weight % 2 * kOdd + weight % 8 / 2) * kBandColumns * 2;
  }

 private:
  unsigned char *memory_, *first_;
  bool has_weights_;
};

// Accumulators of all channels of the weights: for weight w, channels 2 * pair and 2 * pair + 1 of the first row's
// pixel, then of the second row's.
template <int kWeights>
struct BandedSums {
  float of[kWeights][4] = {};

  // Accumulates a row of taps. `band` and `column` are the thread's addresses for the weights and the values (see
  // value_column), offset(weight) the offset of the matrix of a weight.
  template <typename T, typename Offset>
  __device__ void add(const unsigned char* band, const Offset& offset, const unsigned char* column) {
#pragma unroll
    for (int weight = 0; weight < kWeights; weight += 2) {
      uint32_t values[4], weights[2][4];
      load_transposed_matrices(column + weight * 16, values);
      load_matrices(band + offset(weight), weights[0]);
      load_matrices(band + offset(weight + 1), weights[1]);
      multiply_accumulate<T>(of[weight], weights[0], &values[0]);
      multiply_accumulate<T>(of[weight + 1], weights[1], &values[2]);
    }
  }
};

// The column and the weight whose values a thread passes to load_transposed_matrices: threads 0 to 15 have the sixteen
// columns of one weight, 16 to 31 those of the next.
__device__ inline int value_column(int lane) { return lane % 16; }
__device__ inline int value_weight(int lane) { return lane / 16; }

// Epilogue: scales the sums by factor(weight), applies the norm and ReLU if there are any, and stores.
template <typename T, int kWeights, typename Factor>
__device__ void store_sums(const BandedSums<kWeights>& sums, const BandedTile& tile, int row, int all_weights,
                           int first_weight, const float* scale, const float* shift, const Factor& factor, T* to) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int channel = (2 * tile.pair() + i) * all_weights + first_weight;
    Pack<T, kWeights> run;
#pragma unroll
    for (int weight = 0; weight < kWeights; ++weight) {
      float sum = sums.of[weight][2 * row + i] * factor(weight);
      if (scale) sum = relu(sum * scale[channel + weight] + shift[channel + weight]);
      narrow(sum, run[weight]);
    }
    *reinterpret_cast<Pack<T, kWeights>*>(to + channel) = run;
  }
}

}  // namespace sa_layers::cuda
