// How an aggregation is cut into tasks. Channel c of the value uses the weight map c % weight_channels.
#pragma once

#include "cpu/band.h"

namespace sa_layers::cpu {

struct Aggregation {
  Footprint footprint;
  int64_t batch, channels, weight_channels;

  // How many channels share a weight map; the first maps have one more when the division leaves a rest.
  int64_t sharing(int64_t weight_channel) const {
    return (channels - weight_channel + weight_channels - 1) / weight_channels;
  }
  int64_t output_rows() const { return footprint.rows.output_size(); }
};

// One band of output rows of one weight map of one image.
struct AggregationTask {
  int64_t image, weight_channel, row_begin, row_end;

  // Offsets into the tensors (N, C, H, W), (N, C, Ho, Wo) and (N, Cw, Kh * Kw, Ho * Wo) of this task's first map.
  int64_t value_map(const Aggregation& problem) const {
    return (image * problem.channels + weight_channel) * problem.footprint.pixels();
  }
  int64_t output_map(const Aggregation& problem) const {
    return (image * problem.channels + weight_channel) * problem.footprint.output_pixels();
  }
  int64_t weight_map(const Aggregation& problem) const {
    return (image * problem.weight_channels + weight_channel) * problem.footprint.taps() *
           problem.footprint.output_pixels();
  }
};

// All tasks of a problem. Bands give every thread work when there are few maps, and keep a band's copy in the cache.
struct AggregationTasks {
  const Aggregation& problem;
  int64_t band_rows, bands;

  AggregationTasks(const Aggregation& problem_, int64_t band_rows_) : problem(problem_), band_rows(band_rows_) {
    bands = divide_up(problem.output_rows(), band_rows);
  }

  int64_t count() const { return problem.batch * problem.weight_channels * bands; }
  AggregationTask operator[](int64_t index) const {
    const int64_t map = index / bands, first_row = index % bands * band_rows;
    return {map / problem.weight_channels, map % problem.weight_channels, first_row,
            smaller(first_row + band_rows, problem.output_rows())};
  }
  // How many tasks are worth a thread: about 50 microseconds at ten products a nanosecond.
  int64_t grain() const {
    const int64_t sharing = larger(1, problem.channels / problem.weight_channels);
    const int64_t products = band_rows * problem.footprint.columns.output_size() * problem.footprint.taps() * sharing;
    return larger(1, 500'000 / larger(1, products));
  }
};

}  // namespace sa_layers::cpu
