// What the passes of a call have in common on the host: the pairs, and the position features by offset, in float64.
#pragma once

#include <vector>

#include "cpu/pairwise_training/problem.h"
#include "cpu/runtime/doubles.h"

namespace sa_layers::cpu {

// Coordinates of pixels along an axis: from -1 to 1; or, for a `size`, such that a map of that size would reach from -1
// to 1, with 0 at the centre.
inline Doubles pixel_coordinates(int64_t length, int64_t size) {
  Doubles result(length, -1.0);
  for (int64_t i = 0; i < length; ++i) {
    const double from_centre = static_cast<double>(i) - 0.5 * static_cast<double>(length - 1);
    if (size > 0) result[i] = from_centre * 2.0 / static_cast<double>(size - 1);
    if (size == 0 && length > 1) result[i] = from_centre * 2.0 / static_cast<double>(length - 1);
  }
  return result;
}

// How many pairs of an output axis have each offset from a pixel to its neighbour.
inline Doubles count_offsets(const Axis& axis, const DistinctPixelsOfAxis& read) {
  Doubles counts(2 * axis.padding() + 1, 0.0);
  for (int64_t i = 0; i < axis.output_size(); ++i) {
    for (const DistinctPixel* pixel = read.begin(i); pixel != read.end(i); ++pixel) {
      if (pixel->pixel >= 0) counts[pixel->pixel - i * axis.stride + axis.padding()] += pixel->taps;
    }
  }
  return counts;
}

// The pairs of a call.
class PairGeometry {
 public:
  PairwiseTraining problem{};
  Doubles query_position, key_position;  // (positions, 3)
  Doubles row_coordinates, column_coordinates;
  // By offset: the number of pairs, and their position features (offsets, positions).
  Doubles counts, features;

  PairGeometry(const Tensor& query, const Tensor& key, const OptionalTensor& query_position_,
               const OptionalTensor& key_position_, const Pair& position_size, const Footprint& footprint,
               Relation relation, int64_t value_channels, int64_t hidden, int64_t weight_channels)
      : rows_(footprint.rows, footprint.mode), columns_(footprint.columns, footprint.mode) {
    problem.footprint = footprint, problem.relation = relation;
    problem.batch = query.size(0), problem.channels = query.size(3), problem.value_channels = value_channels;
    problem.hidden = hidden, problem.weight_channels = weight_channels;
    problem.rows_read = rows_.view(), problem.columns_read = columns_.view();
    problem.lanes = vector_type(query.scalar_type()).lanes;
    row_coordinates = pixel_coordinates(footprint.rows.size, position_size.empty() ? 0 : position_size[0]);
    column_coordinates = pixel_coordinates(footprint.columns.size, position_size.empty() ? 0 : position_size[1]);
    if (!query_position_) return;
    query_position = doubles(*query_position_), key_position = doubles(*key_position_);
    problem.positions = query_position_->size(0);
    problem.by_offset = depends_on_offset();
    if (problem.by_offset) tabulate();
  }
  PairGeometry(const PairGeometry&) = delete;
  PairGeometry& operator=(const PairGeometry&) = delete;

  // The difference of coordinates (x, y) of the two pixels of a pair.
  double difference(int64_t offset, int64_t coordinate) const {
    const int64_t width = problem.column_offsets();
    const int64_t steps = coordinate == 0 ? offset % width - problem.footprint.columns.padding()
                                          : offset / width - problem.footprint.rows.padding();
    const Doubles& at = coordinate == 0 ? column_coordinates : row_coordinates;
    return at.size() > 1 ? -static_cast<double>(steps) * (at[1] - at[0]) : 0.0;
  }

 private:
  // Whether the position features of a pair follow from the offset between its pixels: if the two matrices are opposite
  // but for the constants, and every neighbour is a pixel.
  bool depends_on_offset() const {
    constexpr int64_t kMostOffsets = 1024;
    const Footprint& footprint = problem.footprint;
    if (problem.positions == 0 || footprint.mode != Padding::kReflect) return false;
    if (problem.row_offsets() * problem.column_offsets() > kMostOffsets) return false;
    for (size_t i = 0; i < query_position.size(); ++i) {
      if (i % 3 != 2 && query_position[i] != -key_position[i]) return false;
    }
    return true;
  }

  void tabulate() {
    const Doubles rows = count_offsets(problem.footprint.rows, problem.rows_read);
    const Doubles columns = count_offsets(problem.footprint.columns, problem.columns_read);
    for (int64_t offset = 0; offset < problem.offsets(); ++offset) {
      const int64_t width = problem.column_offsets();
      counts.push_back(static_cast<double>(problem.batch) * rows[offset / width] * columns[offset % width]);
      for (int64_t p = 0; p < problem.positions; ++p) {
        const double* const matrix = query_position.data() + 3 * p;
        features.push_back(matrix[0] * difference(offset, 0) + matrix[1] * difference(offset, 1) + matrix[2] +
                           key_position[3 * p + 2]);
      }
    }
  }

  DistinctPixels rows_, columns_;
};

}  // namespace sa_layers::cpu
