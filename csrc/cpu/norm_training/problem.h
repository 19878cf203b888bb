// What the kernels of norms in training are asked to do, and how the work is cut into bands. The sums of a band are
// computed by one thread and added in order, and bands depend on the size of the map only: results are the same with
// any number of threads.
#pragma once

#include "cpu/runtime/element.h"
#include "footprint.h"

namespace sa_layers::cpu {

// A channels-last map, or some channels of a wider one: `stride` numbers from a pixel to the next.
template <typename T>
struct Map {
  T* data;
  int64_t stride;

  T* at(int64_t pixel) const { return data + pixel * stride; }
};

// Pixels whose sums are in the dtype of computation; those of longer runs are in float64.
constexpr int64_t kRunPixels = 32;
// Fewer of many channels: the next run is prefetched into the second-level cache.
inline int64_t run_rows(int64_t channels) { return channels <= 512 ? kRunPixels : kRunPixels / 2; }
constexpr int64_t kBandNumbers = int64_t{1} << 16, kMaxBands = 128;

// Rows of equal length in bands of at least kBandNumbers and of whole runs.
struct Bands {
  int64_t rows, band_rows;

  Bands(int64_t rows, int64_t row_numbers, int64_t run_rows)
      : rows(rows),
        band_rows(round_up(max(ceil_div(kBandNumbers, max(1, row_numbers)), ceil_div(rows, kMaxBands)), run_rows)) {}

  int64_t count() const { return ceil_div(rows, band_rows); }
  int64_t begin(int64_t band) const { return band * band_rows; }
  int64_t end(int64_t band) const { return min(rows, (band + 1) * band_rows); }
};

// Mean and squared deviations of all rows of a map.
template <typename T>
struct Statistics {
  Map<const T> pixels;
  int64_t channels;
};

// grad = scale * pixels + shift > 0 ? grad : 0, and the sums of grad and of grad * (pixels - center).
template <typename T>
struct MaskAndSum {
  Map<T> grad;
  Map<const T> pixels;
  int64_t channels;
  const Compute<T>*scale, *shift, *center;
};

// k1 * grad + (k2 * (pixels - center) + k3), or k1 * grad if k2 is null.
template <typename T>
struct Factors {
  const Compute<T>*k1, *k2, *center, *k3;
};

template <typename T>
struct NormBackward {
  Map<const T> grad, pixels;
  int64_t channels;
  Factors<T> factors;
  bool accumulates;
  Map<T> out;
};

// 2x2 max-pooling after a norm and a ReLU, or without both if scale is null.
template <typename T>
struct Pooling {
  Map<const T> pixels;
  int64_t height, width, channels;
  const Compute<T>*scale, *shift;

  int64_t out_height() const { return height / 2; }
  int64_t out_width() const { return width / 2; }
  // The first of the pixels that a row of the output reads; rows are counted through all images.
  int64_t first_pixel(int64_t out_row) const {
    return (out_row / out_height() * height + out_row % out_height() * 2) * width;
  }
};

template <typename T>
struct PoolingSums {
  Pooling<T> pooling;
  Map<const T> grad;  // of the output
  const Compute<T>* center;
};

template <typename T>
struct PoolingBackward {
  Pooling<T> pooling;
  Map<const T> grad;  // of the output
  Factors<T> factors;
  Map<T> out;
};

}  // namespace sa_layers::cpu
