// A linear layer of every pixel, channels last, with what frozen norms leave around it:
//
//     result (+)= bias + matrix * relu(scale * features + shift), and then relu(output_scale * result + output_shift)
//
// or of the maximum of every 2x2 pixels of the features, which has no norm.
#pragma once

#include "cpu/matrix.h"

namespace sa_layers::cpu {

// Output channels come in panels, each a matrix of its own, input channels x kPanelColumns: what the innermost loop
// reads is one run of memory.
constexpr int64_t kPanelColumns = kGroupColumns;
// Pixels that pass through a panel together, at most: so many the cache holds.
constexpr int64_t kMostPixels = 224;

struct Projection {
  int64_t pixels, channels, panels;
  const float *features, *scale, *shift;  // scale and shift are null without a norm before
  int64_t feature_step;                   // from pixel to pixel
  bool pools;
  int64_t height, width, row_step;  // of the features, where they are pooled
  const float *matrix, *bias;       // (panels, channels, kPanelColumns) and (panels, kPanelColumns)
  const float *output_scale, *output_shift;
  float* result;
  int64_t result_step;
  bool adds;  // to what the result holds, instead of to the bias
  int64_t part_pixels, panel_parts;
  bool matrix_is_cached;  // by the second-level cache

  // As many tasks as threads at least, and more where that costs little. A part of the pixels reads the whole matrix, a
  // part of the panels all pixels: what is less is read more often.
  void share_out(int64_t threads) {
    constexpr int64_t kBlocks = 3 * 14, kCachedMatrix = (512 << 10) / sizeof(float);  // blocks of every capability
    matrix_is_cached = panels * channels * kPanelColumns <= kCachedMatrix;
    int64_t pixel_parts = divide_up(pixels, matrix_is_cached ? kBlocks : kMostPixels / 2);
    panel_parts = 1;
    if (pixel_parts < threads && pixels < panels * kPanelColumns) {
      pixel_parts = divide_up(pixels, kMostPixels), panel_parts = smaller(panels, divide_up(threads, pixel_parts));
    } else if (!matrix_is_cached || pixel_parts < threads) {
      pixel_parts = divide_up(pixel_parts, threads) * threads;
    }
    part_pixels = matrix_is_cached && pixel_parts > threads ? kBlocks : divide_up(pixels, pixel_parts);
  }
  // How many tasks are worth a thread: about 10 microseconds at 40 products a nanosecond.
  int64_t grain() const {
    return larger(1, 400'000 / (part_pixels * channels * divide_up(panels, panel_parts) * kPanelColumns));
  }
  float* result_at(int64_t pixel, int64_t panel) const { return result + pixel * result_step + panel * kPanelColumns; }
  // The upper left of the four features that a pixel of the result is the maximum of.
  const float* corner_of(int64_t pixel) const {
    const int64_t columns = width / 2, rows = height / 2, row = pixel / columns;
    return features + (row / rows * height + 2 * (row % rows)) * row_step + 2 * (pixel % columns) * feature_step;
  }
  int64_t tasks() const { return divide_up(pixels, part_pixels) * panel_parts; }
};

}  // namespace sa_layers::cpu
