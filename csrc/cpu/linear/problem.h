// A linear layer of every pixel, channels last, with the frozen norms before and after it:
//
//     result (+)= bias + matrix * relu(scale * features + shift), and then relu(output_scale * result + output_shift)
//
// or of the features after 2x2 max-pooling, without a norm before it.
#pragma once

#include "footprint.h"

namespace sa_layers::cpu {

// Packed matrices have their columns in groups, as many as the widest vector has lanes; the last group is padded with
// zeros.
constexpr int64_t kGroupColumns = 16;
inline int64_t pad_columns(int64_t columns) { return ceil_div(columns, kGroupColumns) * kGroupColumns; }

// The matrix is split into panels of output channels. Each is packed as (input channels, kPanelColumns) right before it
// is read, so that the innermost loop reads contiguous memory.
constexpr int64_t kPanelColumns = kGroupColumns;
// The largest number of pixels that are multiplied by a panel together: their left factor fits the cache.
constexpr int64_t kMaxPixels = 224;

// What a layer multiplies: pixels of some stride, or relu(scale * pixels + shift). Without a norm, scale and shift are
// null.
struct Activations {
  const float* pixels;
  int64_t stride;
  const float *scale, *shift;
};

struct Projection {
  int64_t pixels, channels, panels;
  const float *features, *scale, *shift;  // scale and shift are null without a norm before the layer
  int64_t feature_stride;                 // between pixels
  bool pools;
  int64_t height, width, row_stride;  // of the features, when they are pooled
  const float* const* weights;        // of each panel, (kPanelColumns, channels)
  const float* bias;                  // (panels, kPanelColumns)
  const float* matrix;                // all packed panels, if matrix_is_cached
  const float *output_scale, *output_shift;
  float* result;
  int64_t result_stride;
  bool adds;  // adds to the result instead of to the bias
  int64_t part_pixels, panel_parts;
  bool matrix_is_cached;  // in the second-level cache

  // Cuts the work into at least as many tasks as there are threads, and into more where that costs little. A part of
  // the pixels reads and packs the whole matrix, a part of the panels reads all pixels: the smaller of the two is read
  // more often.
  void split(int64_t threads) {
    constexpr int64_t kPartPixels = 3 * 14;  // a multiple of the block's rows for every instruction set
    constexpr int64_t kCachedMatrix = (512 << 10) / sizeof(float);
    matrix_is_cached = panels * channels * kPanelColumns <= kCachedMatrix;
    int64_t pixel_parts = ceil_div(pixels, matrix_is_cached ? kPartPixels : kMaxPixels / 2);
    panel_parts = 1;
    const bool few_pixels = pixel_parts < threads || (pixels <= kMaxPixels && !matrix_is_cached);
    if (few_pixels && pixels < panels * kPanelColumns) {
      pixel_parts = ceil_div(pixels, kMaxPixels), panel_parts = min(panels, ceil_div(threads, pixel_parts));
    } else if (!matrix_is_cached || pixel_parts < threads) {
      pixel_parts = ceil_div(pixel_parts, threads) * threads;
    }
    part_pixels = matrix_is_cached && pixel_parts > threads ? kPartPixels : ceil_div(pixels, pixel_parts);
  }
  // The number of tasks worth starting a thread for: about 10 microseconds at 40 products a nanosecond.
  int64_t grain() const {
    return max(1, 400'000 / (part_pixels * channels * ceil_div(panels, panel_parts) * kPanelColumns));
  }
  float* result_at(int64_t pixel, int64_t panel) const {
    return result + pixel * result_stride + panel * kPanelColumns;
  }
  // The upper left of the four pixels of the features that a pixel of the result pools.
  const float* corner_of(int64_t pixel) const {
    const int64_t columns = width / 2, rows = height / 2, row = pixel / columns;
    return features + (row / rows * height + 2 * (row % rows)) * row_stride + 2 * (pixel % columns) * feature_stride;
  }
  int64_t tasks() const { return ceil_div(pixels, part_pixels) * panel_parts; }
};

}  // namespace sa_layers::cpu
