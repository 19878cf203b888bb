// Pairwise attention in one pass: what the kernels are told. Maps have their channels side by side in memory.
#pragma once

#include "cpu/distinct_pixels.h"
#include "cpu/element.h"
#include "footprint.h"

namespace sa_layers::cpu {

constexpr int kMappingLayers = 3;     // at most
constexpr int kPositionWidth = 4;     // the position features of a pair, and room for as many
constexpr int kWidestVector = 16;     // elements
constexpr int64_t kRowsInBlock = 98;  // pairs that are mapped at once: two footprints of 7 x 7, and fit the cache

// An output pixel.
struct PixelPlace {
  int64_t image, row, column;
};

// Steps, in elements, to the next image, row and pixel.
struct MapSteps {
  int64_t image, row, pixel;

  // The pixel under the centre of a footprint.
  int64_t to(const PixelPlace& place, const Footprint& footprint) const {
    return place.image * image + place.row * footprint.rows.stride * row +
           place.column * footprint.columns.stride * pixel;
  }
};

struct PairwiseAttention {
  Footprint footprint;
  Relation relation;
  int64_t batch, channels, value_channels, positions;
  int64_t layers, widths[kMappingLayers + 1];  // of the mapping: its input, what lies between, its output
  MapSteps query_steps, key_steps, value_steps;
  DistinctPixelsOfAxis rows_read, columns_read;

  int64_t relation_channels() const { return widths[0] - positions; }
  int64_t weight_channels() const { return widths[layers]; }
  int64_t output_pixels() const { return batch * footprint.output_pixels(); }
  PixelPlace place_of(int64_t output_pixel) const {
    const int64_t image = output_pixel / footprint.output_pixels(), pixel = output_pixel % footprint.output_pixels();
    return {image, pixel / footprint.columns.output_size(), pixel % footprint.columns.output_size()};
  }
  int64_t most_rows_in_block() const { return larger(kRowsInBlock, footprint.taps()); }
  // How many pixels are worth a thread: about 50 microseconds at 40 products a nanosecond.
  int64_t grain() const {
    int64_t products = 2 * value_channels;
    for (int64_t layer = 0; layer < layers; ++layer) products += widths[layer] * widths[layer + 1];
    return larger(divide_up(kRowsInBlock, footprint.taps()), 2'000'000 / (products * footprint.taps()));
  }
};

// The mapping's parameters in the order in which they are read: weights as [input][output], with as many outputs as
// fill vectors; those of the last layer are repeated, so that its vectors lie as the value's do.
template <typename C>
struct PackedMapping {
  const C *scale, *shift;  // before the first ReLU, of the relation: those of the position are in its tables
  const C* weights[kMappingLayers];
  const C* biases[kMappingLayers];
  int64_t padded_widths[kMappingLayers + 1];
  const C *output_scale, *output_shift;  // null without an epilogue
  // Position features of a pair: the sum of four rows of kPositionWidth, which the two pixels' rows and columns name.
  const C *query_rows, *query_columns, *key_rows, *key_columns;
};

}  // namespace sa_layers::cpu
