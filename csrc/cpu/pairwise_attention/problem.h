// Pairwise attention in one pass: the problem as the kernels see it, and its implementations. The channels of a map are
// contiguous.
#pragma once

#include <cmath>
#include <vector>

#include "cpu/runtime/implementations.h"
#include "footprint.h"

namespace sa_layers::cpu {

// The distinct pixels that an output row or column reads. Beyond the border several taps of a footprint read the same
// pixel; their pairs have the same features, and are computed once.
struct DistinctPixel {
  int32_t pixel;      // -1 for padded zeros
  int32_t first_tap;  // of the taps that read it
  int32_t taps;
  double log2_taps;
};

// The pixels of all outputs along an axis.
struct DistinctPixelsOfAxis {
  const DistinctPixel* pixels;
  const int32_t* starts;  // of each output's pixels, followed by the end of the last

  const DistinctPixel* begin(int64_t output) const { return pixels + starts[output]; }
  const DistinctPixel* end(int64_t output) const { return pixels + starts[output + 1]; }
};

class DistinctPixels {
 public:
  DistinctPixels(const Axis& axis, Padding mode) {
    for (int64_t output = 0; output < axis.output_size(); ++output) {
      const size_t start = pixels_.size();
      starts_.push_back(static_cast<int32_t>(start));
      for (int64_t tap = 0; tap < axis.kernel; ++tap) {
        const auto pixel = static_cast<int32_t>(axis.pixel(axis.padded(output, tap), mode));
        size_t i = start;
        while (i < pixels_.size() && pixels_[i].pixel != pixel) ++i;
        if (i == pixels_.size()) pixels_.push_back({pixel, static_cast<int32_t>(tap), 0, 0.0});
        ++pixels_[i].taps;
      }
    }
    starts_.push_back(static_cast<int32_t>(pixels_.size()));
    for (DistinctPixel& pixel : pixels_) pixel.log2_taps = std::log2(pixel.taps);
  }

  DistinctPixelsOfAxis view() const { return {pixels_.data(), starts_.data()}; }

 private:
  std::vector<DistinctPixel> pixels_;
  std::vector<int32_t> starts_;
};

constexpr int kMaxLayers = 3;        // of the mapping
constexpr int kMaxPositions = 4;     // position features of a pair; tables have rows of this size
constexpr int kMaxLanes = 16;        // float32 elements in the widest vector
constexpr int64_t kBlockPairs = 98;  // pairs that are mapped together: two footprints of 7 x 7, which fit the cache

// An output pixel.
struct PixelIndex {
  int64_t image, row, column;
};

// Strides in elements between images, rows and pixels.
struct MapStrides {
  int64_t image, row, pixel;

  // The offset of the pixel under the centre of a footprint.
  int64_t offset_of(const PixelIndex& index, const Footprint& footprint) const {
    return index.image * image + index.row * footprint.rows.stride * row +
           index.column * footprint.columns.stride * pixel;
  }
};

struct PairwiseAttention {
  Footprint footprint;
  Relation relation;
  int64_t batch, channels, value_channels, positions;
  int64_t layers, widths[kMaxLayers + 1];  // of the mapping: its inputs, then the outputs of each layer
  MapStrides query_strides, key_strides, value_strides;
  DistinctPixelsOfAxis rows_read, columns_read;

  int64_t relation_channels() const { return widths[0] - positions; }
  int64_t weight_channels() const { return widths[layers]; }
  int64_t output_pixels() const { return batch * footprint.output_pixels(); }
  PixelIndex index_of(int64_t output_pixel) const {
    const int64_t image = output_pixel / footprint.output_pixels(), pixel = output_pixel % footprint.output_pixels();
    return {image, pixel / footprint.columns.output_size(), pixel % footprint.columns.output_size()};
  }
  int64_t max_block_pairs() const { return max(kBlockPairs, footprint.taps()); }
  // The number of pixels worth starting a thread for: about 50 microseconds at 40 products a nanosecond.
  int64_t grain() const {
    int64_t products = 2 * value_channels;
    for (int64_t layer = 0; layer < layers; ++layer) products += widths[layer] * widths[layer + 1];
    return max(ceil_div(kBlockPairs, footprint.taps()), 2'000'000 / (products * footprint.taps()));
  }
};

// A layer's parameters before packing. The norm after the layer becomes part of it; null after the last.
template <typename C>
struct MappingLayer {
  const C *weight, *bias;  // (outputs, inputs) of these strides, and (outputs)
  int64_t output_stride, input_stride;
  const C *next_scale, *next_shift;  // (outputs)
};

// The parameters of the mapping in the order in which they are read. Weights are [input][output], with outputs padded
// to full vectors. The outputs of the last layer are repeated instead, so that vectors of weights match vectors of the
// value.
template <typename C>
struct PackedMapping {
  const C *scale, *shift;  // of the relation, before the first ReLU; those of the position are in the tables below
  const C* weights[kMaxLayers];
  const C* biases[kMaxLayers];
  int64_t padded_widths[kMaxLayers + 1];
  const C *output_scale, *output_shift;  // null without an epilogue
  // The position features of a pair are the sum of four table rows of kMaxPositions, one for each row and column of the
  // two pixels.
  const C *query_rows, *query_columns, *key_rows, *key_columns;
};

// The implementations, in the order in which they are tried. The first is restricted to problems for which it measured
// faster, on the stages of SAN.

inline std::string why_not_mapping(const PairwiseAttention& problem) {
  if (problem.layers > kMaxLayers) {
    return "the mapping has " + std::to_string(problem.layers) + " layers, more than " + std::to_string(kMaxLayers);
  }
  if (problem.positions <= kMaxPositions) return "";
  return "a position has " + std::to_string(problem.positions) + " features, more than " +
         std::to_string(kMaxPositions);
}

inline std::string why_not_pixel_lanes(const PairwiseAttention& problem, const VectorType& vector) {
  constexpr int64_t kMaxChannels = 16;  // with narrower vectors too
  const Axis& columns = problem.footprint.columns;
  if (columns.stride != 1) return "the horizontal stride is " + std::to_string(columns.stride) + ", not 1";
  if (problem.channels > kMaxChannels) {
    return "query and key have " + std::to_string(problem.channels) + " channels, more than " +
           std::to_string(kMaxChannels);
  }
  const int64_t width = columns.output_size();
  if (4 * width < 3 * round_up(width, vector.lanes)) {
    return "rows of " + std::to_string(width) + " pixels use less than three quarters of their vectors of " +
           std::to_string(vector.lanes) + " lanes";
  }
  return why_not_mapping(problem);
}

inline std::string why_not_channel_lanes(const PairwiseAttention& problem, const VectorType&) {
  return why_not_mapping(problem);
}

constexpr Implementation<PairwiseAttention> kPixelLanes{"pixels in lanes", why_not_pixel_lanes};
constexpr Implementation<PairwiseAttention> kChannelLanes{"channels in lanes", why_not_channel_lanes};
constexpr const Implementation<PairwiseAttention>* kImplementations[] = {&kPixelLanes, &kChannelLanes};

}  // namespace sa_layers::cpu
