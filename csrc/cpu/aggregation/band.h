// Bands of output rows, and copies of the padded rows that they read. Since the copy includes the padding, inner loops
// need no tests for borders, and a tap of consecutive output pixels reads contiguous memory: the value under tap (i, j)
// of output pixel (row, column) is at
//     (row - row_begin) * row_stride + i * tap_stride + offset(j) + column.
// For a footprint of stride s, a padded row is stored as s phases: columns 0, s, 2s, ..., then 1, s + 1, 2s + 1, ...
#if defined(SA_LAYERS_CPU_AGGREGATION_BAND_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_AGGREGATION_BAND_H
#undef SA_LAYERS_CPU_AGGREGATION_BAND_H
#else
#define SA_LAYERS_CPU_AGGREGATION_BAND_H
#endif

#include "cpu/runtime/element.h"
#include "cpu/simd/vector.h"
#include "footprint.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

struct Band {
  const Footprint& footprint;
  int64_t row_begin, row_end;         // output rows
  int64_t padded_begin, padded_rows;  // the rows that they read, counted from the first padded row of the map
  int64_t phase_size, row_size, row_stride, tap_stride;

  Band(const Footprint& footprint_, int64_t row_begin_, int64_t row_end_)
      : footprint(footprint_), row_begin(row_begin_), row_end(row_end_) {
    const Axis &rows = footprint.rows, &columns = footprint.columns;
    padded_begin = row_begin * rows.stride;
    padded_rows = (row_end - 1 - row_begin) * rows.stride + rows.reach() + 1;
    phase_size = ceil_div(columns.size + columns.reach(), columns.stride);
    row_size = phase_size * columns.stride;
    row_stride = rows.stride * row_size;
    tap_stride = rows.dilation * row_size;
  }

  int64_t size() const { return padded_rows * row_size; }
  // The padded column that is stored at a position of a row.
  int64_t padded_column(int64_t position) const {
    return position % phase_size * footprint.columns.stride + position / phase_size;
  }
};

// Tables that a task computes once for all its channels, since their entries need divisions.
class BandTables {
 public:
  explicit BandTables(const Band& band) : tables_(2 * band.footprint.columns.kernel + band.row_size) {
    const Axis& axis = band.footprint.columns;
    int64_t* const phases = tables_.data();
    int64_t* const shifts = phases + axis.kernel;
    int64_t* const columns = shifts + axis.kernel;
    for (int64_t tap = 0; tap < axis.kernel; ++tap) {
      phases[tap] = tap * axis.dilation % axis.stride;
      shifts[tap] = tap * axis.dilation / axis.stride;
    }
    for (int64_t position = 0; position < band.row_size; ++position) {
      columns[position] = axis.pixel(band.padded_column(position), band.footprint.mode);
    }
    tap_phases = phases, tap_shifts = shifts, map_columns = columns;
    // At stride 1 the columns inside the border are contiguous in the map.
    run_begin = axis.stride == 1 ? axis.padding() : 0;
    run_end = axis.stride == 1 ? axis.padding() + axis.size : 0;
  }

  const int64_t *tap_phases,
      *tap_shifts;  // for each column of taps: its phase, and the position of output column 0 in that phase
  int64_t offset(const Band& band, int64_t column_tap) const {
    return tap_phases[column_tap] * band.phase_size + tap_shifts[column_tap];
  }
  const int64_t* map_columns;  // the map's column at each position of a padded row, -1 for a padded zero
  int64_t run_begin, run_end;

 private:
  Scratch<int64_t> tables_;
};

// Copies a map into a band's padded rows.

template <typename T>
void copy_band(const Band& band, const BandTables& tables, const T* map, Compute<T>* copy) {
  const Footprint& footprint = band.footprint;
  const auto copy_positions = [&](const T* from, int64_t begin, int64_t end) {
    for (int64_t position = begin; position < end; ++position) {
      const int64_t column = tables.map_columns[position];
      copy[position] = column < 0 ? 0 : load_one(from + column);
    }
  };
  for (int64_t row = 0; row < band.padded_rows; ++row, copy += band.row_size) {
    const int64_t source = footprint.rows.pixel(band.padded_begin + row, footprint.mode);
    if (source < 0) {
      for (int64_t position = 0; position < band.row_size; ++position) copy[position] = 0;
      continue;
    }
    const T* from = map + source * footprint.columns.size;
    copy_positions(from, 0, tables.run_begin);
    convert_run(from, copy + tables.run_begin, tables.run_end - tables.run_begin);
    copy_positions(from, tables.run_end, band.row_size);
  }
}

// The transpose for one row: adds the sums of a padded row to the row of the map that it repeats.
template <typename C>
void add_row(const Band& band, const BandTables& tables, const C* sums, C* map_row) {
  const auto add_positions = [&](int64_t begin, int64_t end) {
    for (int64_t position = begin; position < end; ++position) {
      const int64_t column = tables.map_columns[position];
      if (column >= 0) map_row[column] += sums[position];
    }
  };
  add_positions(0, tables.run_begin);
  for (int64_t i = tables.run_begin; i < tables.run_end; ++i) map_row[i - tables.run_begin] += sums[i];
  add_positions(tables.run_end, band.row_size);
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_AGGREGATION_BAND_H
