// How an aggregation is cut into tasks.
#pragma once

#include "cpu/band.h"
#include "footprint.h"

namespace sa_layers::cpu {

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
  // Into (N, Cw, Ho * Wo).
  int64_t logsumexp_map(const Aggregation& problem) const {
    return (image * problem.weight_channels + weight_channel) * problem.footprint.output_pixels();
  }
};

// All tasks of a problem: whole maps, or bands, which give every thread work when there are few maps and keep the copy
// of a large one in the cache. Eight rows at least, since neighbouring bands copy the same rows.
struct AggregationTasks {
  const Aggregation& problem;
  int64_t band_rows, bands;

  AggregationTasks(const Aggregation& problem_, bool whole_maps) : problem(problem_) {
    const int64_t rows = problem.footprint.rows.output_size(), maps = larger(1, problem.weight_maps());
    const int64_t scratch_rows = 32'768 / (problem.footprint.columns.size + problem.footprint.columns.reach());
    band_rows = smaller(divide_up(rows * maps, 32), scratch_rows);
    band_rows = whole_maps ? rows : smaller(rows, larger(8, band_rows));
    bands = divide_up(rows, band_rows);
  }

  int64_t count() const { return problem.weight_maps() * bands; }
  AggregationTask operator[](int64_t index) const {
    const int64_t map = index / bands, first_row = index % bands * band_rows;
    return {map / problem.weight_channels, map % problem.weight_channels, first_row,
            smaller(first_row + band_rows, problem.footprint.rows.output_size())};
  }
  // How many tasks are worth a thread: about 50 microseconds at ten products a nanosecond.
  int64_t grain() const {
    const int64_t sharing = larger(1, problem.channels / problem.weight_channels);
    const int64_t products = band_rows * problem.footprint.columns.output_size() * problem.footprint.taps() * sharing;
    return larger(1, 500'000 / larger(1, products));
  }
};

}  // namespace sa_layers::cpu
