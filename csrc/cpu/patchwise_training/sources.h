// The pixels that the taps of a band's output pixels read.
#if defined(SA_LAYERS_CPU_PATCHWISE_TRAINING_SOURCES_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PATCHWISE_TRAINING_SOURCES_H
#undef SA_LAYERS_CPU_PATCHWISE_TRAINING_SOURCES_H
#else
#define SA_LAYERS_CPU_PATCHWISE_TRAINING_SOURCES_H
#endif

#include "cpu/patchwise_training/problem.h"
#include "cpu/simd/vector.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Where the taps of a footprint read along an axis, as offsets: offsets[tap * tap_stride + position * position_stride].
// Padded zeros are so negative that any sum with them is.
inline void list_offsets(const Axis& axis, Padding mode, int64_t begin, int64_t end, int64_t first, int64_t step,
                         int32_t* offsets, int64_t tap_stride, int64_t position_stride) {
  constexpr int32_t kOutside = -(1 << 30);
  for (int64_t tap = 0; tap < axis.kernel; ++tap) {
    for (int64_t position = begin; position < end; ++position) {
      const int64_t pixel = axis.pixel(axis.padded(position, tap), mode);
      offsets[tap * tap_stride + (position - begin) * position_stride] =
          pixel < 0 ? kOutside : static_cast<int32_t>((pixel - first) * step);
    }
  }
}

// The sources of the taps of a band's pixels, as offsets into its region: sources[pixel][tap], or sources[tap][pixel]
// if tap_stride is not 1. Padded zeros read the pixel after the last one of the region. Writes up to a vector past the
// end.
inline void list_sources(const Footprint& footprint, const RowBand& band, int64_t pixel_size, int32_t* sources,
                         int64_t tap_stride) {
  constexpr int64_t lanes = kLanes<float>;
  const Axis &rows = footprint.rows, &columns = footprint.columns;
  const int64_t width = columns.output_size(), row_taps = rows.kernel, column_taps = columns.kernel;
  const auto outside = static_cast<int32_t>(band.source_rows() * columns.size * pixel_size);
  const Scratch<int32_t> of_rows(band.rows() * row_taps), of_columns(width * column_taps + lanes);
  list_offsets(rows, footprint.mode, band.row_begin, band.row_end, band.source_begin, columns.size * pixel_size,
               of_rows.data(), 1, row_taps);
  const bool taps_follow = tap_stride == 1;
  list_offsets(columns, footprint.mode, 0, width, 0, pixel_size, of_columns.data(), taps_follow ? 1 : width,
               taps_follow ? column_taps : 1);
  for (int64_t i = 0; i < lanes; ++i) of_columns.data()[width * column_taps + i] = 0;
  // What is written past the end of a run is overwritten by the next one.
  const auto add = [=](int32_t row, const int32_t* column, int64_t count, int32_t* to) ALWAYS_INLINE_LAMBDA {
    for (int64_t i = 0; i < count; i += lanes) {
      Bits offsets;
      __builtin_memcpy(&offsets, column + i, sizeof(offsets));
      offsets += row;
      const Bits is_outside = offsets < 0;
      offsets = (is_outside & outside) | (~is_outside & offsets);
      __builtin_memcpy(to + i, &offsets, sizeof(offsets));
    }
  };
  if (taps_follow) {
    for (int64_t y = 0; y < band.rows(); ++y) {
      for (int64_t x = 0; x < width; ++x) {
        for (int64_t i = 0; i < row_taps; ++i, sources += column_taps) {
          add(of_rows.data()[y * row_taps + i], of_columns.data() + x * column_taps, column_taps, sources);
        }
      }
    }
    return;
  }
  for (int64_t i = 0; i < row_taps; ++i) {
    for (int64_t j = 0; j < column_taps; ++j, sources += tap_stride) {
      for (int64_t y = 0; y < band.rows(); ++y) {
        add(of_rows.data()[y * row_taps + i], of_columns.data() + j * width, width, sources + y * width);
      }
    }
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PATCHWISE_TRAINING_SOURCES_H
