// A band is a run of output rows. The padded rows that its footprints touch are copied into scratch once, so that no
// inner loop knows of borders, and so that a tap of consecutive output pixels reads consecutive memory:
//     the value under tap (i, j) of output pixel (row, column) lies at
//     (row - row_begin) * row_step + i * tap_step + offset(j) + column.
// At stride s a padded row is stored as s phases: columns 0, s, 2s, ..., then columns 1, s + 1, 2s + 1, ...
#pragma once

#include "cpu/element.h"
#include "footprint.h"

namespace sa_layers::cpu {

struct Band {
  const Footprint& footprint;
  int64_t row_begin, row_end;         // output rows
  int64_t padded_begin, padded_rows;  // the rows that they touch, counted from the first padded row of the map
  int64_t phase_size, row_size, row_step, tap_step;

  Band(const Footprint& footprint_, int64_t row_begin_, int64_t row_end_)
      : footprint(footprint_), row_begin(row_begin_), row_end(row_end_) {
    const Axis &rows = footprint.rows, &columns = footprint.columns;
    padded_begin = row_begin * rows.stride;
    padded_rows = (row_end - 1 - row_begin) * rows.stride + rows.reach() + 1;
    phase_size = divide_up(columns.size + columns.reach(), columns.stride);
    row_size = phase_size * columns.stride;
    row_step = rows.stride * row_size;
    tap_step = rows.dilation * row_size;
  }

  int64_t size() const { return padded_rows * row_size; }
  // The padded column that a place of a row holds.
  int64_t padded_column(int64_t place) const {
    return place % phase_size * footprint.columns.stride + place / phase_size;
  }
};

// What a task works out once for all its channels, since it costs divisions.
class BandTables {
 public:
  explicit BandTables(const Band& band) : numbers_(2 * band.footprint.columns.kernel + band.row_size) {
    const Axis& axis = band.footprint.columns;
    int64_t* const phases = numbers_.data();
    int64_t* const shifts = phases + axis.kernel;
    int64_t* const columns = shifts + axis.kernel;
    for (int64_t tap = 0; tap < axis.kernel; ++tap) {
      phases[tap] = tap * axis.dilation % axis.stride;
      shifts[tap] = tap * axis.dilation / axis.stride;
    }
    for (int64_t place = 0; place < band.row_size; ++place) {
      columns[place] = axis.pixel(band.padded_column(place), band.footprint.mode);
    }
    tap_phases = phases, tap_shifts = shifts, map_columns = columns;
    // Without a stride the inner columns are a run of the map's row.
    run_begin = axis.stride == 1 ? axis.padding() : 0;
    run_end = axis.stride == 1 ? axis.padding() + axis.size : 0;
  }

  const int64_t *tap_phases, *tap_shifts;  // of a column of taps: its phase, and where output column 0 finds it there
  int64_t offset(const Band& band, int64_t column_tap) const {
    return tap_phases[column_tap] * band.phase_size + tap_shifts[column_tap];
  }
  const int64_t* map_columns;  // the column of the map that a place of a padded row shows, or -1
  int64_t run_begin, run_end;

 private:
  Scratch<int64_t> numbers_;
};

}  // namespace sa_layers::cpu
