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

// Calls body(column of the slice, tap, channel) for the columns of a slice.
template <typename Body>
ALWAYS_INLINE void for_each_column(const Columns& columns, int64_t slice, const Body& body) {
  const int64_t channels = columns.slice_channels(slice), first = slice * columns.width;
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t tap = 0; tap < columns.taps; ++tap) body(columns.column(tap, c), tap, first + c);
  }
}

// to[column] = from(tap, channel).
template <typename C, typename From>
void pack_row(const Columns& columns, int64_t slice, const From& from, C* to) {
  fill_with_zeros(to, columns.slice_columns());
  for_each_column(columns, slice,
                  [&](int64_t column, int64_t tap, int64_t channel) { to[column] = from(tap, channel); });
}

// The matrix with a row for each of `depth` numbers and the columns of a slice: to[vector][row][lane].
template <typename C, typename From>
void pack_columns(const Columns& columns, int64_t slice, int64_t depth, const From& from, C* to) {
  const int64_t lanes = columns.lanes;
  fill_with_zeros(to, columns.slice_columns() * depth);
  for (int64_t row = 0; row < depth; ++row) {
    for_each_column(columns, slice, [&](int64_t column, int64_t tap, int64_t channel) {
      to[(column / lanes * depth + row) * lanes + column % lanes] = from(tap, channel, row);
    });
  }
}

// The matrix with a row for each column of a slice, and the outputs: to[panel][output vector][row][lane], with `period`
// rows in a vector.
template <typename C, typename From>
void pack_outputs(const Columns& columns, int64_t slice, const Outputs& outputs, const From& from, C* to) {
  const int64_t lanes = columns.lanes, panel_columns = columns.panel_vectors * lanes, period = outputs.period;
  const int64_t vector_size = panel_columns * lanes / period, panel_size = vector_size * outputs.vectors();
  fill_with_zeros(to, columns.panels * panel_size);
  for (int64_t n = 0; n < outputs.count; ++n) {
    C* const of_output = to + n * period / lanes * vector_size + n * period % lanes;
    for_each_column(columns, slice, [&](int64_t column, int64_t tap, int64_t channel) {
      const int64_t panel = column / panel_columns, row = column % panel_columns;
      of_output[panel * panel_size + row / period * lanes + row % period] = from(tap, channel, n);
    });
  }
}

// The opposite of pack_columns for one row, in float64: adds the `count` matrices of a slice that are `stride` elements
// apart, in their order, and calls to(tap, channel, sum).
template <typename C, typename To>
void unpack_row(const Columns& columns, int64_t slice, int64_t depth, int64_t row, const C* from, int64_t count,
                int64_t stride, const To& to) {
  const int64_t lanes = columns.lanes;
  const Scratch<double> sums(columns.slice_columns());
  for (int64_t vector = 0; vector < columns.vectors(); ++vector) {
    const C* const first = from + (vector * depth + row) * lanes;
    double* const sum = sums.data() + vector * lanes;
    for (int64_t lane = 0; lane < lanes; ++lane) sum[lane] = 0;
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t lane = 0; lane < lanes; ++lane) sum[lane] += first[i * stride + lane];
    }
  }
  for_each_column(columns, slice,
                  [&](int64_t column, int64_t tap, int64_t channel) { to(tap, channel, sums.data()[column]); });
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PATCHWISE_TRAINING_PACKING_H
