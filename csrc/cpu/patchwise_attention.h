// How a patchwise attention is cut into tasks, and what a task reads and writes.
//
//     hidden = relu(hidden_bias + sum over taps and channels of hidden_weight * relu(scale * feature + shift))
//     output = sum over taps of (bias + weight * hidden) * value
//
// The first sum is a matrix product whose left factor, pixels x (taps * channels), is made a panel at a time; so are the
// weights of the second. The query counts as tap 0 of the first sum, and the taps of the footprint follow.
#pragma once

#include "cpu/element.h"
#include "footprint.h"

namespace sa_layers::cpu {

// Columns of a matrix come in groups of the widest vector's lanes, and are padded with zeros where they do not.
constexpr int64_t kGroupColumns = 16;
inline int64_t pad_columns(int64_t columns) { return divide_up(columns, kGroupColumns) * kGroupColumns; }

// A map of which the channels of a pixel are neighbours in memory, and pixels are row_major, pixel_step elements apart.
template <typename T>
struct ChannelsLast {
  T* data;
  int64_t pixel_step;
};

struct PatchwiseAttention {
  Footprint footprint;
  int64_t batch, relation_channels, channels, weight_channels, tile_pixels;

  int64_t relation_taps() const { return footprint.taps() + 1; }
  int64_t tiles() const { return divide_up(footprint.output_pixels(), tile_pixels); }
  // With few weights there is too little in a row of the matrices to fill a vector: pixels fill it.
  bool has_few_weights() const { return weight_channels <= 4; }
  // Weights of a tap, in the order of the value's channels: periodic where they divide a vector, otherwise padded.
  int64_t tap_step() const {
    return kGroupColumns % weight_channels == 0 ? weight_channels : pad_columns(weight_channels);
  }
  // The taps of which a block of pixels has its weights in the nearest cache.
  int64_t weight_panel_taps() const { return smaller(footprint.taps(), larger(1, 448 / tap_step())); }
  // Two rows of the hidden matrix share a group of columns where each would fill half of it.
  int64_t hidden_period() const {
    return weight_channels > 4 && weight_channels <= 8 && relation_channels % 2 == 0 ? 2 : 1;
  }
};

// The mapping's affine and matrices, in float32.
struct PatchwiseMapping {
  const float *scale, *shift;   // (taps + 1, relation channels)
  const float *hidden_weight;   // rows of hidden_step, a row for every `hidden_period` channels of a tap
  const float *hidden_bias;     // one row
  int64_t hidden_step;
  const float *weight, *bias;   // rows of weight_step, a row for every hidden channel: tap_step columns for each tap
  int64_t weight_step;
  const float *output_scale, *output_shift;  // of each channel, followed by a ReLU; or null
};

// The pixel that every tap of every output pixel reads, as the sum of a row's part and a column's part: negative where
// one of them is a padded zero.
class TapSources {
 public:
  explicit TapSources(const Footprint& footprint)
      : footprint_(footprint),
        numbers_(footprint.rows.output_size() * (footprint.rows.kernel + 1) +
                 footprint.columns.output_size() * (footprint.columns.kernel + 1)) {
    columns_ = fill(footprint.rows, footprint.columns.size, numbers_.data());
    fill(footprint.columns, 1, columns_);
  }

  // For pixels begin <= pixel < end: the pixel itself in the input, then the source of every tap.
  void list(int64_t begin, int64_t end, int32_t* to) const {
    const int64_t width = footprint_.columns.output_size();
    const int64_t row_taps = footprint_.rows.kernel, column_taps = footprint_.columns.kernel;
    for (int64_t pixel = begin; pixel < end; ++pixel) {
      const int32_t* const row = numbers_.data() + pixel / width * (row_taps + 1);
      const int32_t* const column = columns_ + pixel % width * (column_taps + 1);
      *to++ = row[0] + column[0];
      for (int64_t i = 1; i <= row_taps; ++i) {
        for (int64_t j = 1; j <= column_taps; ++j) *to++ = row[i] + column[j];
      }
    }
  }

 private:
  static constexpr int32_t kOutside = -(1 << 30);

  int32_t* fill(const Axis& axis, int64_t step, int32_t* to) const {
    for (int64_t position = 0; position < axis.output_size(); ++position) {
      *to++ = static_cast<int32_t>(position * axis.stride * step);
      for (int64_t tap = 0; tap < axis.kernel; ++tap) {
        const int64_t pixel = axis.pixel(axis.padded(position, tap), footprint_.mode);
        *to++ = pixel < 0 ? kOutside : static_cast<int32_t>(pixel * step);
      }
    }
    return to;
  }

  const Footprint& footprint_;
  Scratch<int32_t> numbers_;
  int32_t* columns_;
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
