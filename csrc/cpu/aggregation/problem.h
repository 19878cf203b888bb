// The tasks of an aggregation: bands of output rows of weight maps.
#pragma once

#include "footprint.h"

namespace sa_layers::cpu {

// A band of output rows of one weight map of one image.
struct AggregationTask {
  int64_t image, weight_channel, row_begin, row_end;

  // Offsets of the task's first map in (N, C, H, W) and (N, C, Ho, Wo).
  int64_t value_map(const Aggregation& problem) const {
    return (image * problem.channels + problem.first_channel(weight_channel)) * problem.footprint.pixels();
  }
  int64_t output_map(const Aggregation& problem) const {
    return (image * problem.channels + problem.first_channel(weight_channel)) * problem.footprint.output_pixels();
  }
  // Offset of the softmax's maximum and normalizer in (N, Cw, Ho * Wo).
  int64_t softmax_map(const Aggregation& problem) const {
    return (image * problem.weight_channels + weight_channel) * problem.footprint.output_pixels();
  }
};

// Between the images, weight channels and taps of weights, in elements. Pixels are contiguous.
struct WeightStrides {
  int64_t image, channel, tap;

  // Those of (N, Cw, Kh * Kw, Ho * Wo) in this order.
  static WeightStrides contiguous(const Aggregation& problem) {
    const int64_t tap = problem.footprint.output_pixels(), channel = problem.footprint.taps() * tap;
    return {problem.weight_channels * channel, channel, tap};
  }
  // Offset of the task's weight map.
  int64_t map(const AggregationTask& task) const { return task.image * image + task.weight_channel * channel; }
};

// All tasks of a problem: whole maps or bands of rows. Bands give every thread work when there are few maps, and keep
// the copy of a large map in the cache. They have at least eight rows, since neighbouring bands copy some of the same
// rows.
struct AggregationTasks {
  const Aggregation& problem;
  int64_t band_rows, bands;

  AggregationTasks(const Aggregation& problem_, bool whole_maps) : problem(problem_) {
    const int64_t rows = problem.footprint.rows.output_size(), maps = max(1, problem.weight_maps());
    const int64_t scratch_rows = 32'768 / (problem.footprint.columns.size + problem.footprint.columns.reach());
    band_rows = min(ceil_div(rows * maps, 32), scratch_rows);
    band_rows = whole_maps ? rows : min(rows, max(8, band_rows));
    bands = ceil_div(rows, band_rows);
  }

  int64_t count() const { return problem.weight_maps() * bands; }
  AggregationTask operator[](int64_t index) const {
    const int64_t map = index / bands, first_row = index % bands * band_rows;
    return {map / problem.weight_channels, map % problem.weight_channels, first_row,
            min(first_row + band_rows, problem.footprint.rows.output_size())};
  }
  // The number of tasks worth starting a thread for: about 50 microseconds at ten products a nanosecond.
  int64_t grain() const {
    const int64_t sharing = max(1, problem.channels / problem.weight_channels);
    const int64_t products = band_rows * problem.footprint.columns.output_size() * problem.footprint.taps() * sharing;
    return max(1, 500'000 / max(1, products));
  }
};

}  // namespace sa_layers::cpu
