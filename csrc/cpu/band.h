// A band is a run of output rows. Its layout says how the pixels that its footprints touch are copied into scratch, so
// that every tap of consecutive output pixels reads consecutive memory and no inner loop knows of borders:
//     the value under tap t of pixel p lies at  start(segment of p) + (p - first pixel of the segment) + offset(t).
//
// Two layouts. Wide maps: the padded rows as they are, one segment an output row. Narrow or strided maps: one plane for
// each column of taps, holding the pixels under that column for all output columns; the rows of taps are then shifts by
// whole output rows, and the band is a single segment, so vectors stay full on a 7 x 7 map. At stride s, rows of taps
// that fall on different rows modulo s (phases) need planes of their own.
#pragma once

#include "cpu/element.h"
#include "footprint.h"

namespace sa_layers::cpu {

struct BandLayout {
  Footprint footprint;
  int64_t row_begin, row_end;                            // the output rows of this band
  bool wide;                                             // which of the two layouts
  int64_t phases, rows, row_size;                        // a plane is rows x row_size; a wide layout has one
  int64_t segments, segment_pixels, segment_step;        // a step is the distance between starts in the copy

  BandLayout(const Footprint& footprint_, int64_t row_begin_, int64_t row_end_, bool wide_)
      : footprint(footprint_), row_begin(row_begin_), row_end(row_end_), wide(wide_) {
    const Axis &vertical = footprint.rows, &horizontal = footprint.columns;
    const int64_t output_rows = row_end - row_begin, reach = (vertical.kernel - 1) * vertical.dilation;
    if (wide) {
      phases = 1;
      rows = (output_rows - 1) * vertical.stride + reach + 1;
      row_size = horizontal.size + 2 * horizontal.padding();
      segments = output_rows, segment_pixels = horizontal.size, segment_step = vertical.stride * row_size;
    } else {
      phases = smaller(vertical.kernel, phase_period());
      rows = output_rows + reach / vertical.stride;
      row_size = horizontal.output_size();
      segments = 1, segment_pixels = output_rows * row_size, segment_step = 0;
    }
  }

  // Padded rows cost a part-filled vector at each row's end, planes a copy per column of taps.
  static bool wide_is_better(const Footprint& footprint, int64_t lanes) {
    return footprint.columns.stride == 1 && footprint.columns.size >= lanes + lanes / 2;
  }

  int64_t planes() const { return wide ? 1 : footprint.columns.kernel * phases; }
  int64_t plane_size() const { return rows * row_size; }
  int64_t channel_size() const { return planes() * plane_size(); }
  int64_t pixels() const { return segments * segment_pixels; }
  int64_t first_pixel() const { return row_begin * footprint.columns.output_size(); }

  int64_t offset(int64_t tap) const {
    const int64_t row_tap = tap / footprint.columns.kernel, column_tap = tap % footprint.columns.kernel;
    if (wide) return row_tap * footprint.rows.dilation * row_size + column_tap * footprint.columns.dilation;
    return (column_tap * phases + row_tap % phase_period()) * plane_size() + row_shift(row_tap) * row_size;
  }
  int64_t row_shift(int64_t row_tap) const { return row_tap * footprint.rows.dilation / footprint.rows.stride; }

  // The padded position, counted in the whole map, that a row of a plane shows.
  int64_t padded_row(int64_t plane, int64_t row) const {
    const Axis& vertical = footprint.rows;
    if (wide) return row_begin * vertical.stride + row;
    return (row_begin + row) * vertical.stride + (plane % phases) * vertical.dilation % vertical.stride;
  }
  // The padded position of the first column of a plane; columns are column_step() apart.
  int64_t padded_column(int64_t plane) const { return wide ? 0 : plane / phases * footprint.columns.dilation; }
  int64_t column_step() const { return wide ? 1 : footprint.columns.stride; }

  // Rows of taps r and r + period fall on the same rows modulo the stride.
  int64_t phase_period() const {
    int64_t a = footprint.rows.stride, b = footprint.rows.dilation;
    while (b != 0) {
      const int64_t rest = a % b;
      a = b, b = rest;
    }
    return footprint.rows.stride / a;
  }
};

}  // namespace sa_layers::cpu
