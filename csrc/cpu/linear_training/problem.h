// The linear layers of every pixel in training, channels last: forward and the gradient of the input are products of
// pixels with a matrix, the gradient of the weights is a sum over the pixels.
//
// Bands of pixels are of a size that depends on the problem alone. Sums over pixels are added up band by band, so that
// they are the same for any number of threads.
#pragma once

#include "cpu/linear/problem.h"

namespace sa_layers::cpu {

// A channels-last map, or channels of a wider one: the stride is that between pixels.
struct PixelRows {
  const float* data;
  int64_t stride;
};

// The ReLU of the norm before a layer, in backward: a gradient passes where scale * pixels + shift > 0. The sums of the
// gradient that passes, and of its products with pixels - mean, are (bands, 2, panels * kPanelColumns).
struct ReluMask {
  PixelRows pixels;  // null without a norm
  const float *scale, *shift, *mean;
  double* sums;
};

// result = residual + bias + activations * matrix, where the matrix is that of the weights (D, C), transposed in
// forward:
//
//     forward:  (pixels, C) * (C, D), with a norm and its ReLU before it
//     backward: (pixels, D) * (D, C), with a mask after it
struct PixelProduct {
  int64_t pixels, depth, columns, panels;
  Activations activations;
  const float* const* weights;  // of 16 output channels each, (16, weight_channels)
  int64_t weight_channels;
  bool transposes;
  const float* matrix;  // all packed panels
  const float* bias;    // (panels, kPanelColumns), zeros if there is none
  bool has_bias;
  PixelRows residual;  // null if there is none
  float* result;
  int64_t result_stride;
  ReluMask mask;
  int64_t band_pixels, panel_parts;
  bool matrix_is_cached;  // whether it fits the second-level cache

  int64_t bands() const { return ceil_div(pixels, band_pixels); }
  int64_t tasks() const { return bands() * panel_parts; }
  // A band has at most kMaxPixels if its left factor must stay in the second-level cache. A panel part reads all pixels
  // of the band.
  void split(int64_t threads) {
    constexpr int64_t kCachedMatrix = (512 << 10) / sizeof(float), kRows = 14, kMinPixels = 3 * kRows, kMinBands = 64;
    matrix_is_cached = panels * depth * kPanelColumns <= kCachedMatrix;
    const int64_t most = matrix_is_cached ? 24 * kMinPixels : kMaxPixels;
    int64_t count = ceil_div(pixels, most);
    if (matrix_is_cached) count = max(count, min(kMinBands, ceil_div(pixels, kMinPixels)));
    band_pixels = ceil_div(ceil_div(pixels, count), kRows) * kRows;
    panel_parts = min(ceil_div(panels, 2), max(1, ceil_div(threads, count)));
    if (matrix_is_cached) panel_parts = 1;
  }
  // The number of tasks worth starting a thread for: about 10 microseconds at 40 products a nanosecond.
  int64_t grain() const {
    return max(1, 400'000 / (band_pixels * depth * ceil_div(panels, panel_parts) * kPanelColumns));
  }
};

// The gradient of the weights, sum over pixels of grad * activations, (outputs, channels), and that of the biases.
struct WeightGradient {
  int64_t pixels, outputs, channels, panels;
  PixelRows grad;
  Activations activations;
  float* sums;  // (bands, outputs, sums_stride): in rows of whole panels, or the result itself if there is one band
  int64_t sums_stride;
  double* bias_sums;  // (bands, outputs), or null
  int64_t band_pixels, panel_parts;

  int64_t bands() const { return ceil_div(pixels, band_pixels); }
  int64_t tasks() const { return bands() * panel_parts; }
  // float32 sums stay accurate over the pixels of a band; they are added up in float64. A panel part packs the
  // gradients of all outputs.
  void split(int64_t threads) {
    constexpr int64_t kBandPixels = 2048;
    band_pixels = ceil_div(pixels, ceil_div(pixels, kBandPixels));
    panel_parts = min(ceil_div(panels, 2), ceil_div(threads, bands()));
  }
  int64_t grain() const {
    return max(1, 400'000 / (band_pixels * outputs * ceil_div(panels, panel_parts) * kPanelColumns));
  }
};

}  // namespace sa_layers::cpu
