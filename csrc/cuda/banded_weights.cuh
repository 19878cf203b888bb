// A warp's weights as bands of matrices in shared memory, and what it adds up with them on tensor cores.
#pragma once

#include "cuda/banded_region.cuh"
#include "cuda/four.cuh"
#include "cuda/packed_pair.cuh"
#include "cuda/tensor_core.cuh"

namespace sa_layers::cuda {

// The output pixels of a warp, and which of them are a thread's: the ones in column lane / 4 of both rows, as in the
// fragments of tensor cores.
struct BandedTile {
  int row_tile, column_tile, lane;

  // Where several warps share a tile, those side by side do.
  __device__ explicit BandedTile(const BandedPlan& plan, int warps_of_tile = 1) : lane(int(threadIdx.x) % 32) {
    const int tile = int(threadIdx.x) / 32 / warps_of_tile;
    row_tile = tile / plan.column_tiles, column_tile = tile % plan.column_tiles;
  }
  __device__ int pixel() const { return lane / 4; }
  __device__ int pair() const { return lane % 4; }  // of weights, or of channels
};

// kWeights matrices of 16 pixels and 16 columns, that of a pixel and a weight 16 numbers, and 16 bytes between pixels,
// so that eight of them lie in different banks. The even ones of eight weights come before the odd ones: then what a
// warp stores at once lies in different banks, too.
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
  // Beside the bands there are zeros, which nothing overwrites.
  __device__ void clear(int lane) const {
    for (int at = 16 * lane; at < kBytes; at += 16 * 32) *reinterpret_cast<Eight<T>*>(memory_ + at) = {};
  }
  // Two weights, 2 * pair and the next of the eights numbered `eight`, of a tap of the thread's pixel in a row of two.
  __device__ void store(int row, int eight, int column_tap, float one, float other) const {
    if (!has_weights_) return;
    unsigned char* const to = first_ + 8 * row * kStride + 8 * eight * kBandColumns * 2 + column_tap * 2;
    narrow(one, *reinterpret_cast<T*>(to)), narrow(other, *reinterpret_cast<T*>(to + offset(1)));
  }
  // The row that a thread hands to load_matrices.
  __device__ const unsigned char* row_of(int lane) const { return memory_ + lane % 16 * kStride + lane / 16 * 16; }
  // Where the matrix of a weight begins.
  static __device__ constexpr int offset(int weight) {
    constexpr int kOdd = kWeights < 8 ? kWeights / 2 : 4;
    return (weight / 8 * 8 + weight % 2 * kOdd + weight % 8 / 2) * kBandColumns * 2;
  }

 private:
  unsigned char *memory_, *first_;
  bool has_weights_;
};

// Sums of all channels of the weights: of weight w, channels 2 * pair and the next, of the pixel in the first row, then
// in the second.
template <int kWeights>
struct BandedSums {
  float of[kWeights][4] = {};

  // Adds a row of taps. `band` is where the row that the thread hands to load_matrices begins, `offset` where the
  // matrix of a weight does, and `column` where the thread's value of the first sharing channel lies, see value_column.
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

// The column whose values a thread hands to load_transposed_matrices, and the offset of its weight: threads 0 to 7 have
// the first eight columns, 8 to 15 the others, then both again for the next weight.
__device__ inline int value_column(int lane) { return lane % 16; }
__device__ inline int value_weight(int lane) { return lane / 16; }

// Writes sums times `factor(row, weight)`, then the norm and the ReLU behind it.
template <typename T, int kWeights, typename Factor>
__device__ void store_sums(const BandedSums<kWeights>& sums, const BandedTile& tile, int row, int all_weights,
                           int first_weight, const float* scale, const float* shift, const Factor& factor, T* to) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int channel = (2 * tile.pair() + i) * all_weights + first_weight;
    struct alignas(kWeights * sizeof(T) < 16 ? kWeights * sizeof(T) : 16) Run {
      T of[kWeights];
    } run;
#pragma unroll
    for (int weight = 0; weight < kWeights; ++weight) {
      float sum = sums.of[weight][2 * row + i] * factor(weight);
      if (scale) sum = relu(sum * scale[channel + weight] + shift[channel + weight]);
      narrow(sum, run.of[weight]);
    }
    *reinterpret_cast<Run*>(to + channel) = run;
  }
}

}  // namespace sa_layers::cuda
