// Loops that aggregation and its gradients share. All three sums are derivatives of one trilinear form,
//     sum over c, t, p of gradient(c, p) * weight(t, p) * value(c, source(t, p)),
// for a block of channels c that share one weight map: gather() by gradient, which is the output; transposed_gather()
// by value; correlate() by weight. Each sum is computed by one task in a fixed order, so results do not depend on the
// number of threads.
#if defined(SA_LAYERS_CPU_AGGREGATION_LOOPS_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_AGGREGATION_LOOPS_H
#undef SA_LAYERS_CPU_AGGREGATION_LOOPS_H
#else
#define SA_LAYERS_CPU_AGGREGATION_LOOPS_H
#endif

#include "cpu/aggregation/band.h"
#include "cpu/aggregation/problem.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Weights in memory: tap t of pixel p is at data[t * tap_stride + p].
template <typename T>
struct PlainWeights {
  const T* data;
  int64_t tap_stride;

  template <typename Lanes>
  ALWAYS_INLINE Vector<T> operator()(int64_t tap, int64_t pixel, Lanes lanes) const {
    const T* from = data + tap * tap_stride + pixel;
    // Prefetch the next cache line: each tap is a stream of its own, and hardware prefetchers follow fewer streams.
    __builtin_prefetch(from + 64 / sizeof(T));
    return load(from, lanes);
  }
};

// Computing two rows at once halves the loads. It needs registers for twice the accumulators.
template <typename T>
constexpr bool kPairsFit = kVectorBytes == 64 && sizeof(T) == sizeof(float);

// Calls body(Constant<is_pair>, row) for the rows begin <= row < end; a pair consists of row and row + distance.
template <typename T, typename Body>
ALWAYS_INLINE void for_each_pair(int64_t begin, int64_t end, int64_t distance, const Body& body) {
  if constexpr (kPairsFit<T>) {
    for (; distance > 0 && begin + 2 * distance <= end; begin += 2 * distance) {
      for (int64_t row = begin; row < begin + distance; ++row) body(Constant<true>{}, row);
    }
  }
  for (; begin < end; ++begin) body(Constant<false>{}, begin);
}

// Calls body(Constant<use_first>, Constant<use_second>, tap row) for the tap rows of a pair of rows: what the first row
// reads under tap row i, the second reads under tap row i - 1. A single row uses each of its tap rows.
template <bool kPair, typename Body>
ALWAYS_INLINE void for_each_tap_row(int64_t kernel_rows, const Body& body) {
  if constexpr (kPair) {
    body(Constant<true>{}, Constant<false>{}, 0);
    for (int64_t i = 1; i < kernel_rows; ++i) body(Constant<true>{}, Constant<true>{}, i);
    body(Constant<false>{}, Constant<true>{}, kernel_rows);
  } else {
    for (int64_t i = 0; i < kernel_rows; ++i) body(Constant<true>{}, Constant<false>{}, i);
  }
}

// Calls body(Constant<is_pair>, pixel of the first row, pixel of the second row, offset in the band's copy, offsets of
// the column taps from there, lanes) for vectors that cover the band. Some pixels are written twice with the same
// value.
template <typename T, bool kPairs = true, typename Body>
ALWAYS_INLINE void for_each_vector(const Band& band, const BandTables& tables, const Body& body) {
  const Axis& rows = band.footprint.rows;
  const int64_t width = band.footprint.columns.output_size();
  // Under 'clamp', rows near the border share none of their tap rows.
  const bool shared = kPairs && !band.clamped() && rows.dilation % rows.stride == 0;
  const int64_t distance = shared ? rows.dilation / rows.stride : 0;
  for_each_pair<T>(band.row_begin, band.row_end, distance, [&](auto pair, int64_t row) ALWAYS_INLINE_LAMBDA {
    const int64_t pixel = row * width, second = pixel + distance * width, offset = band.row_offset(row);
    for (int64_t i = 0; i < tables.vector_count; ++i) {
      const ColumnVector vector = tables[i];
      if (vector.end == kLanes<T>) {
        body(pair, pixel + vector.column, second + vector.column, offset + vector.column, tables.offsets(i),
             AllLanes{});
      } else {
        body(pair, pixel + vector.column, second + vector.column, offset + vector.column, tables.offsets(i),
             SomeLanes{0, vector.end});
      }
    }
  });
}

// Calls body(Constant<width>, first channel) for blocks of 8, 4, 2 and 1 channels: with a width known at compile time
// the accumulators stay in registers.
template <typename Body>
void for_each_block(int64_t channels, const Body& body) {
  int64_t first = 0;
  for (; first + 8 <= channels; first += 8) body(Constant<8>{}, first);
  if (channels & 4) body(Constant<4>{}, first), first += 4;
  if (channels & 2) body(Constant<2>{}, first), first += 2;
  if (channels & 1) body(Constant<1>{}, first);
}

// Copies the values of each block of channels into a band, then calls body(Constant<width>, band, its tables, the copy,
// the output map of the block's first channel, the stride between output maps).
template <typename T, typename Body>
void for_each_copied_block(const Aggregation& problem, const AggregationTask& task, const T* value, T* output,
                           const Body& body) {
  const Band band(problem.footprint, task.row_begin, task.row_end, kLanes<T>);
  const BandTables tables(band);
  const int64_t channels = problem.sharing(task.weight_channel), step = problem.channel_step();
  const Scratch<Compute<T>> copy(min(channels, 8) * band.size() + kLanes<T>);
  value += task.value_map(problem), output += task.output_map(problem);
  for_each_block(channels, [&](auto width, int64_t first) {
    for (int c = 0; c < width.value; ++c) {
      const T* map = value + (first + c) * step * band.footprint.pixels();
      copy_band(band, tables, map, copy.data() + c * band.size());
    }
    const int64_t channel_stride = step * band.footprint.output_pixels();
    body(width, band, tables, copy.data(), output + first * channel_stride, channel_stride);
  });
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_AGGREGATION_LOOPS_H
