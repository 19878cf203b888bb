// Packs matrices and norms from the order of modules to the order in which the kernels read them, and sums over pixels
// back.
#if defined(SA_LAYERS_CPU_PATCHWISE_TRAINING_PACKING_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PATCHWISE_TRAINING_PACKING_H
#undef SA_LAYERS_CPU_PATCHWISE_TRAINING_PACKING_H
#else
#define SA_LAYERS_CPU_PATCHWISE_TRAINING_PACKING_H
#endif

#include "cpu/patchwise_training/regions.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Calls body(column of the slice, tap, channel) for the columns of a slice: the taps of a channel follow each other, or
// the channels of a tap.
template <typename Body>
ALWAYS_INLINE void for_each_channel_and_tap(const Columns& columns, int64_t slice, const Body& body) {
  const int64_t channels = columns.slice_channels(slice), first = slice * columns.width;
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t panel = 0; panel < columns.panels; ++panel) {
      int64_t column = panel * columns.panel_columns() + c, tap = panel * columns.panel_taps;
      for (const int64_t end = tap + columns.taps_of(panel); tap < end; ++tap, column += columns.width) {
        body(column, tap, first + c);
      }
    }
  }
}
template <typename Body>
ALWAYS_INLINE void for_each_tap_and_channel(const Columns& columns, int64_t slice, const Body& body) {
  const int64_t channels = columns.slice_channels(slice), first = slice * columns.width;
  for (int64_t tap = 0; tap < columns.taps; ++tap) {
    const int64_t column = columns.column(tap, 0);
    for (int64_t c = 0; c < channels; ++c) body(column + c, tap, first + c);
  }
}

// to[column] = from(tap, channel).
template <typename C, typename From>
void pack_row(const Columns& columns, int64_t slice, const From& from, C* to) {
  fill_with_zeros(to, columns.slice_columns());
  for_each_channel_and_tap(columns, slice, [&](int64_t column, int64_t tap, int64_t channel) ALWAYS_INLINE_LAMBDA {
    to[column] = from(tap, channel);
  });
}

// The matrix with a row for each of `depth` numbers and the columns of a slice: to[vector][row][lane].
template <typename C, typename From>
void pack_columns(const Columns& columns, int64_t slice, int64_t depth, const From& from, C* to) {
  const int64_t lanes = kLanes<C>;
  fill_with_zeros(to, columns.slice_columns() * depth);
  for (int64_t row = 0; row < depth; ++row, to += lanes) {
    for_each_tap_and_channel(columns, slice, [&](int64_t column, int64_t tap, int64_t channel) ALWAYS_INLINE_LAMBDA {
      to[column / lanes * lanes * depth + column % lanes] = from(tap, channel, row);
    });
  }
}

// The matrix with a row for each column of a slice, and the outputs: to[panel][output vector][row][lane], with `period`
// rows in a vector.
template <typename C, typename From>
void pack_outputs(const Columns& columns, int64_t slice, const Outputs& outputs, const From& from, C* to) {
  const int64_t lanes = kLanes<C>, panel_columns = columns.panel_columns(), period = outputs.period;
  const int64_t vector_size = panel_columns * lanes / period, panel_size = vector_size * outputs.vectors();
  fill_with_zeros(to, columns.panels * panel_size);
  for (int64_t first = 0; first < outputs.count; first += lanes, to += vector_size) {
    const int64_t count = min(lanes, outputs.count - first);
    for_each_channel_and_tap(columns, slice, [&](int64_t column, int64_t tap, int64_t channel) ALWAYS_INLINE_LAMBDA {
      const int64_t panel = tap / columns.panel_taps, row = column - panel * panel_columns;
      C* const vector = to + panel * panel_size + row / period * lanes + row % period;
      for (int64_t n = 0; n < count; ++n) vector[n * period] = from(tap, channel, first + n);
    });
  }
}

// Sums of a vector of columns, in float64: sums[row][lane] = the sum of the `count` matrices of a slice that are
// `stride` elements apart, in their order, for the rows from `from` on.
template <typename C>
void add_tasks(const C* from, int64_t rows, int64_t count, int64_t stride, double* sums) {
  const int64_t size = rows * kLanes<C>;
  for (int64_t i = 0; i < size; ++i) sums[i] = count > 0 ? from[i] : 0;
  for (int64_t task = 1; task < count; ++task) {
    from += stride;
#pragma GCC ivdep
    for (int64_t i = 0; i < size; ++i) sums[i] += from[i];
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PATCHWISE_TRAINING_PACKING_H
