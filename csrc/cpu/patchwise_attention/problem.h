// Patchwise attention in one pass: the problem as the kernels see it, and its implementations.
//
//     hidden = relu(hidden_bias + sum over taps and channels of hidden_weight * relu(scale * feature + shift))
//     output = sum over taps of (bias + weight * hidden) * value
//
// The first sum is a matrix product. Its left factor, pixels x (taps * channels), is computed a panel at a time; so are
// the weights of the second sum. Tap 0 of the first sum is the query; the taps of the footprint follow.
#pragma once

#include "cpu/linear/problem.h"
#include "cpu/runtime/element.h"
#include "cpu/runtime/implementations.h"
#include "footprint.h"

namespace sa_layers::cpu {

// A channels-last map: the channels of a pixel are contiguous, pixels are in row-major order with a stride of
// pixel_stride elements.
template <typename T>
struct ChannelsLast {
  T* data;
  int64_t pixel_stride;
};

constexpr int64_t kPackedTaps = 8, kPackedChannels = 16;  // that a task packs
constexpr int64_t kHiddenDepth = 256;  // of a panel of the hidden matrix, whose left factor stays in the cache

struct PatchwiseAttention {
  Footprint footprint;
  PatchwiseRelation relation;
  int64_t batch, relation_channels, channels, weight_channels;
  bool pixels_in_lanes;  // the implementation of the hidden layer
  int64_t tile_pixels;

  // The pixel itself and the taps of its footprint.
  int64_t sources() const { return footprint.taps() + 1; }
  bool is_product() const { return relation != PatchwiseRelation::kConcatenation; }
  // Features of the relation: (taps + 1) * channels, taps or taps * taps.
  int64_t feature_taps() const {
    if (!is_product()) return footprint.taps() + 1;
    return relation == PatchwiseRelation::kStar ? footprint.taps() : footprint.taps() * footprint.taps();
  }
  int64_t feature_channels() const { return is_product() ? 1 : relation_channels; }
  int64_t features() const { return feature_taps() * feature_channels(); }
  int64_t tiles() const { return ceil_div(footprint.output_pixels(), tile_pixels); }
  // The stride between the weights of two taps. Weights are in the order of the value's channels; if their number does
  // not divide a vector, it is padded.
  int64_t tap_stride() const {
    return kGroupColumns % weight_channels == 0 ? weight_channels : pad_columns(weight_channels);
  }
  // The strides between rows of the packed matrices, in whole groups of columns if channels are in the lanes.
  int64_t hidden_stride() const { return pixels_in_lanes ? weight_channels : pad_columns(weight_channels); }
  int64_t weight_stride() const { return pad_columns(footprint.taps() * tap_stride()); }
  // The taps of a panel of the hidden matrix, and where the rows of a tap begin. The distance between taps would often
  // be a power of two: packing writes to all taps in turn, and they would compete for the cache. So panels are set
  // apart.
  int64_t panel_taps() const { return max(1, kHiddenDepth / feature_channels()); }
  int64_t hidden_offset(int64_t tap) const {
    constexpr int64_t kApart = 5 * kGroupColumns;
    const int64_t offset = tap * feature_channels() / hidden_period() * hidden_stride();
    return pixels_in_lanes ? offset : offset + tap / panel_taps() * kApart;
  }
  // The tasks into which packing the mapping is cut: the query or the products; some taps with a group of weights; some
  // channels of the key with a group of weights.
  int64_t packing_groups() const { return max(1, weight_channels / kGroupColumns); }
  int64_t packing_tasks_of_taps() const { return ceil_div(footprint.taps(), kPackedTaps) * packing_groups(); }
  int64_t packing_tasks() const {
    const int64_t of_channels = is_product() ? 0 : ceil_div(relation_channels, kPackedChannels) * packing_groups();
    return 1 + packing_tasks_of_taps() + of_channels;
  }
  // The number of taps whose weights, for a block of pixels, fit the first-level cache.
  int64_t weight_panel_taps() const { return min(footprint.taps(), max(1, 448 / tap_stride())); }
  // Two rows of the hidden matrix share a group of columns if each would fill half of it.
  int64_t hidden_period() const {
    return weight_channels > 4 && weight_channels <= 8 && feature_channels() % 2 == 0 ? 2 : 1;
  }
};

// The parameters of the mapping in float32, as modules hold them: for each layer the norm before it, its weight (out,
// in) and its bias. The features of 'concatenation' are the query's channels and then, for each channel of the key, its
// taps; the outputs are, for each weight channel, its taps.
struct MappingParameters {
  const float *scale, *shift, *hidden_weight, *hidden_bias;
  const float *hidden_scale, *hidden_shift, *weight, *bias;
};

// The parameters of the mapping as the kernels read them. The norm of the hidden layer is part of its weight and bias.
struct PatchwiseMapping {
  float *scale, *shift;           // (feature taps, feature channels)
  float* hidden_weight;           // rows of hidden_stride, one for every `hidden_period` channels of a tap
  const int64_t* hidden_offsets;  // of the rows of each tap
  float* hidden_bias;             // one row
  int64_t hidden_stride;
  float *weight, *bias;  // rows of weight_stride, one for every hidden channel: tap_stride columns for each tap
  int64_t weight_stride;
  const float *output_scale, *output_shift;  // of each channel, followed by a ReLU; or null
};

// The pixels that the taps of an output pixel read: along each axis, the pixel itself and then every tap. A source is
// the sum of an entry of its row and an entry of its column; it is negative if either is a padded zero.
class TapSources {
 public:
  static constexpr int64_t kSlack = kGroupColumns;  // vectors may read this far past the end

  explicit TapSources(const Footprint& footprint)
      : row_entries_(entries(footprint.rows)), column_entries_(entries(footprint.columns)) {
    fill(footprint.rows, footprint.columns.size, footprint.mode, row_entries_.data());
    fill(footprint.columns, 1, footprint.mode, column_entries_.data());
  }

  const int32_t* rows() const { return row_entries_.data(); }
  const int32_t* columns() const { return column_entries_.data(); }

 private:
  static int64_t entries(const Axis& axis) { return axis.output_size() * (axis.kernel + 1) + kSlack; }

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

  Scratch<int32_t> row_entries_, column_entries_;
};

template <typename T>
struct PatchwiseOperands {
  const PatchwiseAttention& problem;
  const PatchwiseMapping& mapping;
  const TapSources& sources;
  ChannelsLast<const T> query, key, value;
  ChannelsLast<T> output;
};

// The implementations, in the order in which they are tried. With few weights, rows of the matrices do not fill a
// vector.

inline std::string why_not_float64(const VectorType& vector) {
  return vector.is_float64 ? "the maps are float64, and the kernel accumulates in float32" : "";
}

inline std::string why_not_pixel_lanes(const PatchwiseAttention& problem, const VectorType& vector) {
  constexpr int64_t kMaxWeightChannels = 4;
  if (problem.is_product()) return "the relation is a product, 'star' or 'clique'";
  if (problem.weight_channels > kMaxWeightChannels) {
    return "there are " + std::to_string(problem.weight_channels) + " weights for each tap, more than " +
           std::to_string(kMaxWeightChannels);
  }
  return why_not_float64(vector);
}

inline std::string why_not_channel_lanes(const PatchwiseAttention&, const VectorType& vector) {
  return why_not_float64(vector);
}

constexpr Implementation<PatchwiseAttention> kPixelLanes{"pixels in lanes", why_not_pixel_lanes};
constexpr Implementation<PatchwiseAttention> kChannelLanes{"channels in lanes", why_not_channel_lanes};
constexpr const Implementation<PatchwiseAttention>* kImplementations[] = {&kPixelLanes, &kChannelLanes};

}  // namespace sa_layers::cpu
