// How a patchwise attention is cut into tasks, and what a task reads and writes.
//
//     hidden = relu(hidden_bias + sum over taps and channels of hidden_weight * relu(scale * feature + shift))
//     output = sum over taps of (bias + weight * hidden) * value
//
// The first sum is a matrix product whose left factor, pixels x (taps * channels), is made a panel at a time; so are
// the weights of the second. The query counts as tap 0 of the first sum, and the taps of the footprint follow.
#pragma once

#include "cpu/matrix.h"
#include "footprint.h"

namespace sa_layers::cpu {

// A map of which the channels of a pixel are neighbours in memory, and pixels are row_major, pixel_step elements apart.
template <typename T>
struct ChannelsLast {
  T* data;
  int64_t pixel_step;
};

struct PatchwiseAttention {
  Footprint footprint;
  PatchwiseRelation relation;
  int64_t batch, relation_channels, channels, weight_channels, tile_pixels;

  // The pixel itself and what the footprint reads.
  int64_t sources() const { return footprint.taps() + 1; }
  bool is_product() const { return relation != PatchwiseRelation::kConcatenation; }
  // Of the relation: (taps + 1) * channels, taps or taps * taps.
  int64_t feature_taps() const {
    if (!is_product()) return footprint.taps() + 1;
    return relation == PatchwiseRelation::kStar ? footprint.taps() : footprint.taps() * footprint.taps();
  }
  int64_t feature_channels() const { return is_product() ? 1 : relation_channels; }
  int64_t tiles() const { return divide_up(footprint.output_pixels(), tile_pixels); }
  // With few weights there is too little in a row of the matrices to fill a vector: pixels fill it.
  bool has_few_weights() const { return weight_channels <= 4 && !is_product(); }
  // Weights of a tap, in the order of the value's channels: periodic where they divide a vector, otherwise padded.
  int64_t tap_step() const {
    return kGroupColumns % weight_channels == 0 ? weight_channels : pad_columns(weight_channels);
  }
  // The taps of which a block of pixels has its weights in the nearest cache.
  int64_t weight_panel_taps() const { return smaller(footprint.taps(), larger(1, 448 / tap_step())); }
  // Two rows of the hidden matrix share a group of columns where each would fill half of it.
  int64_t hidden_period() const {
    return weight_channels > 4 && weight_channels <= 8 && feature_channels() % 2 == 0 ? 2 : 1;
  }
};

// The mapping's affine and matrices, in float32.
struct PatchwiseMapping {
  const float *scale, *shift;  // (feature taps, feature channels)
  const float* hidden_weight;  // rows of hidden_step, a row for every `hidden_period` channels of a tap
  const float* hidden_bias;    // one row
  int64_t hidden_step;
  const float *weight, *bias;  // rows of weight_step, a row for every hidden channel: tap_step columns for each tap
  int64_t weight_step;
  const float *output_scale, *output_shift;  // of each channel, followed by a ReLU; or null
};

// The pixels that the taps of an output pixel read: for each of its axes, the pixel itself and then every tap. A
// source is the sum of a row's part and a column's part, and negative where one of them is a padded zero.
class TapSources {
 public:
  static constexpr int64_t kSlack = kGroupColumns;  // what a vector may read behind the last number

  explicit TapSources(const Footprint& footprint)
      : row_numbers_(numbers(footprint.rows)), column_numbers_(numbers(footprint.columns)) {
    fill(footprint.rows, footprint.columns.size, footprint.mode, row_numbers_.data());
    fill(footprint.columns, 1, footprint.mode, column_numbers_.data());
  }

  const int32_t* rows() const { return row_numbers_.data(); }
  const int32_t* columns() const { return column_numbers_.data(); }

 private:
  static int64_t numbers(const Axis& axis) { return axis.output_size() * (axis.kernel + 1) + kSlack; }

  static void fill(const Axis& axis, int64_t step, Padding mode, int32_t* to) {
    constexpr int32_t kOutside = -(1 << 30);
    for (int64_t position = 0; position < axis.output_size(); ++position) {
      *to++ = static_cast<int32_t>(position * axis.stride * step);
      for (int64_t tap = 0; tap < axis.kernel; ++tap) {
        const int64_t pixel = axis.pixel(axis.padded(position, tap), mode);
        *to++ = pixel < 0 ? kOutside : static_cast<int32_t>(pixel * step);
      }
    }
    for (int64_t i = 0; i < kSlack; ++i) *to++ = 0;
  }

  Scratch<int32_t> row_numbers_, column_numbers_;
};

template <typename T>
struct PatchwiseOperands {
  const PatchwiseAttention& problem;
  const PatchwiseMapping& mapping;
  const TapSources& sources;
  ChannelsLast<const T> query, key, value;
  ChannelsLast<T> output;
};

}  // namespace sa_layers::cpu
