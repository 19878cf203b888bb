// Bands of output rows, and copies of the padded rows that they read. Since the copy includes the padding, inner loops
// need no tests for borders, and a tap of consecutive output pixels reads contiguous memory: the value under tap (i, j)
// of output pixel (row, column) is at
//     (row - row_begin) * row_stride + i * tap_stride + offset(j) + column.
// For a footprint of stride s, a padded row is stored as s phases: columns 0, s, 2s, ..., then 1, s + 1, 2s + 1, ...
//
// Under 'clamp' nothing is padded, and a window near the border does not move with its output pixel. There the copy has
// the map's rows, each followed by expanded vectors: what a tap of the output columns near the border reads, repeated
// for every lane. offset(j) then depends on the vector.
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
  int64_t lanes;                      // of a vector
  int64_t padded_begin, padded_rows;  // the rows that they read, counted from the first padded row of the map
  int64_t phase_size, row_size, row_stride, tap_stride;

  Band(const Footprint& footprint_, int64_t row_begin_, int64_t row_end_, int64_t lanes_)
      : footprint(footprint_), row_begin(row_begin_), row_end(row_end_), lanes(lanes_) {
    const Axis &rows = footprint.rows, &columns = footprint.columns;
    if (clamped()) {
      padded_begin = rows.size;
      int64_t last = 0;
      for (int64_t row = row_begin; row < row_end; ++row) {
        padded_begin = min(padded_begin, rows.window(row)), last = max(last, rows.window(row) + rows.reach());
      }
      padded_rows = last + 1 - padded_begin;
      phase_size = columns.size;
      row_size = columns.size + expanded_vectors() * columns.kernel * lanes;
      row_stride = 0;  // see row_offset()
      tap_stride = rows.dilation * row_size;
      return;
    }
    padded_begin = row_begin * rows.stride;
    padded_rows = (row_end - 1 - row_begin) * rows.stride + rows.reach() + 1;
    phase_size = ceil_div(columns.size + columns.reach(), columns.stride);
    row_size = phase_size * columns.stride;
    row_stride = rows.stride * row_size;
    tap_stride = rows.dilation * row_size;
  }

  bool clamped() const { return footprint.mode == Padding::kClamp; }
  int64_t size() const { return padded_rows * row_size; }
  // Where the first tap of an output row is in the copy.
  int64_t row_offset(int64_t row) const {
    return clamped() ? (footprint.rows.window(row) - padded_begin) * row_size : (row - row_begin) * row_stride;
  }
  // The row of the map that a row of the copy holds, or -1 for padded zeros.
  int64_t map_row(int64_t copy_row) const {
    return clamped() ? padded_begin + copy_row : footprint.rows.pixel(padded_begin + copy_row, footprint.mode);
  }
  // Under 'clamp', output columns from one up to another whose windows move with them, and so need no expanded vectors.
  int64_t moving_begin() const { return moving_columns() > 0 ? footprint.columns.padding() : 0; }
  int64_t moving_end() const { return moving_begin() + moving_columns(); }
  int64_t moving_columns() const {
    const Axis& columns = footprint.columns;
    return columns.stride == 1 && columns.size > lanes ? max(0, columns.size - 2 * columns.padding()) : 0;
  }
  int64_t expanded_vectors() const {
    return ceil_div(moving_begin(), lanes) + ceil_div(footprint.columns.output_size() - moving_end(), lanes);
  }
  // An upper bound.
  int64_t vectors() const { return ceil_div(footprint.columns.output_size(), lanes) + 2; }
  // The padded column that is stored at a position of a row.
  int64_t padded_column(int64_t position) const {
    return position % phase_size * footprint.columns.stride + position / phase_size;
  }
};

// A vector of output columns. The last of several that are contiguous overlaps the one before it instead of being
// partial: the lanes before `begin` are computed twice.
struct ColumnVector {
  int64_t column, begin, end;  // `end` is less than the number of lanes only in a vector that is partial all the same
};

// Tables that a task computes once for all its channels, since their entries need divisions.
class BandTables {
 public:
  explicit BandTables(const Band& band)
      : tables_(2 * band.footprint.columns.kernel + band.row_size +
                (band.clamped() ? band.vectors() : 1) * band.footprint.columns.kernel),
        vectors_(band.vectors()) {
    const Axis& axis = band.footprint.columns;
    int64_t* const phases = tables_.data();
    int64_t* const shifts = phases + axis.kernel;
    int64_t* const columns = shifts + axis.kernel;
    int64_t* const offsets = columns + band.row_size;
    tap_phases = phases, tap_shifts = shifts, map_columns = columns, offsets_ = offsets;
    if (band.clamped()) {
      for (int64_t column = 0; column < axis.size; ++column) columns[column] = column;
      run_begin = 0, run_end = axis.size, offsets_step_ = axis.kernel;
      int64_t position = axis.size;
      position = add_expanded(band, 0, band.moving_begin(), position, columns, offsets);
      const int64_t first = vector_count;
      add_vectors(band, band.moving_begin(), band.moving_end());
      for (int64_t vector = first; vector < vector_count; ++vector) {
        for (int64_t tap = 0; tap < axis.kernel; ++tap) {
          offsets[vector * axis.kernel + tap] = tap * axis.dilation - axis.padding();
        }
      }
      add_expanded(band, band.moving_end(), axis.output_size(), position, columns, offsets);
      return;
    }
    for (int64_t tap = 0; tap < axis.kernel; ++tap) {
      phases[tap] = tap * axis.dilation % axis.stride;
      shifts[tap] = tap * axis.dilation / axis.stride;
      offsets[tap] = phases[tap] * band.phase_size + shifts[tap];
    }
    for (int64_t position = 0; position < band.row_size; ++position) {
      columns[position] = axis.pixel(band.padded_column(position), band.footprint.mode);
    }
    // At stride 1 the columns inside the border are contiguous in the map.
    run_begin = axis.stride == 1 ? axis.padding() : 0;
    run_end = axis.stride == 1 ? axis.padding() + axis.size : 0;
    add_vectors(band, 0, axis.output_size());
  }

  const int64_t *tap_phases,
      *tap_shifts;  // for each column of taps: its phase, and the position of output column 0 in that phase
  // The offsets of a vector's column taps in a row of the copy, to which the vector's column is added.
  const int64_t* offsets(int64_t vector) const { return offsets_ + vector * offsets_step_; }
  const ColumnVector& operator[](int64_t vector) const { return vectors_.data()[vector]; }
  const int64_t* map_columns;  // the map's column at each position of a padded row, -1 for a padded zero
  int64_t run_begin, run_end;
  int64_t vector_count = 0;

 private:
  // Adds the vectors of output columns whose taps read contiguous memory.
  void add_vectors(const Band& band, int64_t begin, int64_t end) {
    const int64_t last = max(begin, end - band.lanes);
    for (int64_t column = begin; column < end; column += band.lanes) {
      const int64_t first = min(column, last);
      vectors_.data()[vector_count++] = {first, column - first, min(band.lanes, end - first)};
    }
  }
  // Adds vectors whose taps read expanded vectors, at `position` in a row and behind; returns the position after them.
  int64_t add_expanded(const Band& band, int64_t begin, int64_t end, int64_t position, int64_t* columns,
                       int64_t* offsets) {
    const Axis& axis = band.footprint.columns;
    for (int64_t column = begin; column < end; column += band.lanes) {
      const int64_t count = min(band.lanes, end - column), vector = vector_count++;
      vectors_.data()[vector] = {column, 0, count};
      for (int64_t tap = 0; tap < axis.kernel; ++tap, position += band.lanes) {
        offsets[vector * axis.kernel + tap] = position - column;
        for (int64_t lane = 0; lane < band.lanes; ++lane) {
          columns[position + lane] = lane < count ? axis.window(column + lane) + tap * axis.dilation : -1;
        }
      }
    }
    return position;
  }

  Scratch<int64_t> tables_;
  Scratch<ColumnVector> vectors_;
  const int64_t* offsets_;
  int64_t offsets_step_ = 0;
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
    const int64_t source = band.map_row(row);
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
