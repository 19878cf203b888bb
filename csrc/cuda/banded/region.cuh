// The region of a map that a block of a banded kernel reads, in shared memory: keys as they are, and the values of some
// weight channels, those that share a weight contiguous.
#pragma once

#include <cstdint>

#include "cuda/banded/plan.h"
#include "cuda/common/element.cuh"
#include "cuda/common/pack.cuh"
#include "footprint.h"

namespace sa_layers::cuda {

// The part of a map that a block works on: its image, group of weights, first output pixel, and the pixels that it
// reads.
struct BandedRegion {
  int64_t image;
  int group, row, column;
  int first_row, last_row, first_column, last_column;

  __device__ BandedRegion(const Footprint& footprint, const BandedPlan& plan) {
    const int all = int(blockIdx.x), tiles = all / plan.groups, lines = tiles / plan.blocks_across;
    group = all - tiles * plan.groups, column = (tiles - lines * plan.blocks_across) * plan.columns();
    image = lines / plan.blocks_down, row = (lines - int(image) * plan.blocks_down) * plan.rows();
    find_hull(footprint.rows, footprint.mode, row, plan.rows(), first_row, last_row);
    find_hull(footprint.columns, footprint.mode, column, plan.columns(), first_column, last_column);
  }

 private:
  // The first and the last pixel that the footprints of `count` output pixels reach.
  static __device__ void find_hull(const Axis& axis, Padding mode, int from, int count, int& first, int& last) {
    const int size = int(axis.size), reach = int(axis.kernel) / 2;
    int begin = from - reach, end = (from + count < size ? from + count : size) - 1 + reach;
    if (mode == Padding::kReflect) {
      const int shown_first = 2 * (size - 1) - end, shown_last = -begin;  // reflected from beyond the borders
      if (begin > shown_first) begin = shown_first;
      if (end < shown_last) end = shown_last;
    }
    first = begin < 0 ? 0 : begin, last = end > size - 1 ? size - 1 : end;
  }
};

// Fills a table of lines, starting at the padded line `from`, with their offsets in the region. The region has lines
// `first` to `last` of the map, and at index `count` one of zeros. `describe` adds the position features.
template <typename Describe>
__device__ void fill_lines(const Axis& axis, Padding mode, int from, int lines, int first, int last, int count,
                           int step, Line* to, const Describe& describe) {
  const int end = int(axis.size) - 1 + int(axis.kernel) - 1;
  for (int i = int(threadIdx.x); i < lines; i += int(blockDim.x)) {
    const int pixel = int(axis.pixel(from + i < end ? from + i : end, mode));
    const bool is_kept = pixel >= first && pixel <= last;  // the others have zero weights, but must not be NaN
    Line line = {0, 0, pixel < 0 ? 0.0f : 1.0f, pixel < 0 ? count * step : is_kept ? (pixel - first) * step : 0};
    if (pixel >= 0) describe(pixel, line);
    to[i] = line;
  }
}

// Numbers the pixels of a region. Shared memory limits their count to where the float division is exact enough.
struct RegionPixels {
  int rows, columns, all_columns, count;  // of the map; including those of zeros
  float per_row;

  __device__ RegionPixels(const BandedRegion& region, bool zeros)
      : rows(region.last_row - region.first_row + 1),
        columns(region.last_column - region.first_column + 1),
        all_columns(columns + zeros),
        count((rows + zeros) * all_columns),
        per_row(1.0f / float(all_columns)) {}
  __device__ int row_of(int pixel) const { return int((float(pixel) + 0.5f) * per_row); }
};

// Copies the keys, kChannels per pixel, pixels `stride` bytes apart.
template <int kChannels, typename T>
__device__ void copy_keys(const BandedRegion& region, const BandedPlan& plan, const T* key, int64_t row_step,
                          int64_t pixel_step, bool zeros, unsigned char* to, int stride) {
  constexpr int kVector = kChannels < 8 ? kChannels : 8, kPieces = kChannels / kVector;
  using Vector = Pack<T, kVector>;
  const RegionPixels pixels(region, zeros);
  const int rows = pixels.rows, columns = pixels.columns;
  for (int item = int(threadIdx.x); item < pixels.count * kPieces; item += int(blockDim.x)) {
    const int piece = item % kPieces, pixel = item / kPieces, row = pixels.row_of(pixel),
              column = pixel - row * pixels.all_columns;
    Vector channels = {};
    if (row < rows && column < columns) {
      const T* const from = key + (region.first_row + row) * row_step + (region.first_column + column) * pixel_step;
      channels = *reinterpret_cast<const Vector*>(from + piece * kVector);
    }
    const int place =
        (row < rows ? row : plan.region_rows) * plan.row_pixels + (column < columns ? column : plan.region_columns);
    *reinterpret_cast<Vector*>(to + place * stride + piece * sizeof(Vector)) = channels;
  }
}

// Copies the values of kWeights weights starting at `first_weight`, so that the eight channels that share a weight are
// contiguous. Channel c uses weight c % all_weights.
template <int kWeights, typename T>
__device__ void copy_values(const BandedRegion& region, const BandedPlan& plan, const T* value, int first_weight,
                            int all_weights, int64_t row_step, int64_t pixel_step, bool zeros, unsigned char* to,
                            int stride) {
  constexpr int kOctets = kWeights < 8 ? 1 : kWeights / 8, kOf = kWeights < 8 ? kWeights : 8;
  const RegionPixels pixels(region, zeros);
  const int rows = pixels.rows, columns = pixels.columns;
  for (int item = int(threadIdx.x); item < pixels.count * kOctets; item += int(blockDim.x)) {
    const int octet = item % kOctets, pixel = item / kOctets, row = pixels.row_of(pixel),
              column = pixel - row * pixels.all_columns;
    T channels[kSharing * kOf] = {};
    if (row < rows && column < columns) {
      const T* const from = value + (region.first_row + row) * row_step + (region.first_column + column) * pixel_step;
#pragma unroll
      for (int i = 0; i < kOf; ++i) {  // eight channels at a time
        const int channel = kOf < 8 ? 8 * i : i * all_weights + first_weight + 8 * octet;
        const Pack<T, 8> pack = *reinterpret_cast<const Pack<T, 8>*>(from + channel);
#pragma unroll
        for (int j = 0; j < 8; ++j) channels[8 * i + j] = pack[j];
      }
    }
    const int place =
        (row < rows ? row : plan.region_rows) * plan.row_pixels + (column < columns ? column : plan.region_columns);
#pragma unroll
    for (int weight = 0; weight < kOf; ++weight) {
      Pack<T, 8> sharing;
#pragma unroll
      for (int s = 0; s < kSharing; ++s) sharing[s] = channels[s * kOf + weight];
      *reinterpret_cast<Pack<T, 8>*>(to + place * stride + (8 * octet + weight) * 16) = sharing;
    }
  }
}

}  // namespace sa_layers::cuda
