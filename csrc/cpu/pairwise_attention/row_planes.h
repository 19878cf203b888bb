// Planes of the rows that the footprints of an output row read: the pixels of a channel are contiguous.
#if defined(SA_LAYERS_CPU_PAIRWISE_ATTENTION_ROW_PLANES_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PAIRWISE_ATTENTION_ROW_PLANES_H
#undef SA_LAYERS_CPU_PAIRWISE_ATTENTION_ROW_PLANES_H
#else
#define SA_LAYERS_CPU_PAIRWISE_ATTENTION_ROW_PLANES_H
#endif

#include "cpu/pairwise_attention/problem.h"
#include "cpu/simd/transpose.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// The rows that a thread currently needs, as planes [feature][column].
template <typename T>
struct RowPlanes {
  using C = Compute<T>;
  const PairwiseAttention& problem;
  int64_t width, padding, padded_width, first_value, plane, row_size, slots;
  Scratch<int32_t> map_columns;  // the pixel of every padded column, -1 for a padded zero
  Scratch<C> ring;               // of padded rows: keys, scaled as the relation needs them, positions and values
  Scratch<C> centres, summands;  // of the output row: the terms of a pair's features that come from the centre
  Scratch<C> pixels;             // a row of the map, when it is stored in half precision

  explicit RowPlanes(const PairwiseAttention& problem_)
      : problem(problem_),
        width(problem.footprint.columns.size),
        padding(problem.footprint.columns.padding()),
        padded_width(width + problem.footprint.columns.reach()),
        first_value(problem.channels + problem.positions),
        plane(round_up(padded_width, kLanes<T>) + kLanes<T>),
        row_size((first_value + problem.value_channels) * plane),
        slots(problem.footprint.rows.reach() + 1),
        map_columns(padded_width),
        ring(slots * row_size),
        centres(problem.channels * plane),
        summands(problem.widths[0] * plane),
        pixels((width + kLanes<T>)*max(problem.channels, problem.value_channels)) {
    for (int64_t x = 0; x < padded_width; ++x) {
      map_columns.data()[x] = static_cast<int32_t>(problem.footprint.columns.pixel(x, problem.footprint.mode));
    }
    // Columns past the last one are computed too.
    for (int64_t i = 0; i < slots * row_size; ++i) ring.data()[i] = 0;
    for (int64_t i = 0; i < problem.channels * plane; ++i) centres.data()[i] = 0;
    for (int64_t i = 0; i < problem.widths[0] * plane; ++i) summands.data()[i] = 0;
  }

  C* row(int64_t padded_row) const { return ring.data() + padded_row % slots * row_size; }

  void read(const C* from, int64_t pixel, int64_t channels, C* to) const {
    to_planes(from, pixel, width, channels, to, plane);
  }
  template <typename Stored>
  void read(const Stored* from, int64_t pixel, int64_t channels, C* to) const {
    for (int64_t x = 0; x < width; ++x) convert_run(from + x * pixel, pixels.data() + x * channels, channels);
    read(pixels.data(), channels, channels, to);
  }

  // Calls body(column) for the vectors of a row of the map.
  template <typename Body>
  ALWAYS_INLINE void for_each_vector(const Body& body) const {
    for (int64_t x = 0; x < width; x += kLanes<T>) body(x);
  }

  // `key` and `value` are the image's.
  void fill(int64_t padded_row, const PackedMapping<C>& mapping, const T* key, const T* value) const {
    C* const to = row(padded_row);
    const int64_t y = problem.footprint.rows.pixel(padded_row, problem.footprint.mode);
    if (y < 0) {
      for (int64_t i = 0; i < row_size; ++i) to[i] = 0;
      return;
    }
    C* const inside = to + padding;
    const C sign = problem.relation == Relation::kSubtraction ? -1 : 1;
    // In a concatenation the keys are the second half; a dot product has one scale for all channels.
    const C* scale = mapping.scale + (problem.relation == Relation::kConcatenation ? problem.channels : 0);
    const int64_t scale_stride = problem.relation == Relation::kDot ? 0 : 1;
    read(key + y * problem.key_strides.row, problem.key_strides.pixel, problem.channels, inside);
    for (int64_t c = 0; c < problem.channels; ++c) {
      C* const from = inside + c * plane;
      const C factor = sign * scale[c * scale_stride];
      for_each_vector([&](int64_t x) ALWAYS_INLINE_LAMBDA { store(from + x, factor * load(from + x)); });
    }
    for (int64_t p = 0; p < problem.positions; ++p) {
      for (int64_t x = 0; x < width; ++x) {
        inside[(problem.channels + p) * plane + x] =
            mapping.key_rows[y * kMaxPositions + p] + mapping.key_columns[x * kMaxPositions + p];
      }
    }
    read(value + y * problem.value_strides.row, problem.value_strides.pixel, problem.value_channels,
         inside + first_value * plane);
    for (int64_t column = 0; column < padded_width; ++column) {
      if (column == padding) column += width;
      if (column == padded_width) break;
      const int64_t x = map_columns.data()[column];
      for (int64_t c = 0; c < first_value + problem.value_channels; ++c) {
        to[c * plane + column] = x < 0 ? 0 : inside[c * plane + x];
      }
    }
  }

  // `query` is row y of the image.
  void centre(int64_t y, const PackedMapping<C>& mapping, const T* query) const {
    const bool is_sum = problem.relation == Relation::kSubtraction || problem.relation == Relation::kSummation;
    read(query, problem.query_strides.pixel, problem.channels, centres.data());
    for (int64_t d = 0; d < problem.relation_channels(); ++d) {
      const C* const from = centres.data() + d * plane;
      C* const to = summands.data() + d * plane;
      for_each_vector([&](int64_t x) ALWAYS_INLINE_LAMBDA {
        Vector<T> summand = broadcast<T>(mapping.shift[d]);
        if (is_sum) summand += mapping.scale[d] * load(from + x);
        store(to + x, summand);
      });
    }
    for (int64_t p = 0; p < problem.positions; ++p) {
      for (int64_t x = 0; x < width; ++x) {
        summands.data()[(problem.relation_channels() + p) * plane + x] =
            mapping.query_rows[y * kMaxPositions + p] + mapping.query_columns[x * kMaxPositions + p];
      }
    }
    if (problem.relation != Relation::kConcatenation) return;
    for (int64_t c = 0; c < problem.channels; ++c) {
      C* const to = centres.data() + c * plane;
      for_each_vector([&](int64_t x) ALWAYS_INLINE_LAMBDA {
        store(to + x, relu(mapping.scale[c] * load(to + x) + mapping.shift[c]));
      });
    }
  }

  // Prefetches the output before it is written.
  void prefetch_written(int64_t count, const T* to) const {
    const int64_t step = 64 / sizeof(T), end = count * problem.value_channels;
    for (int64_t i = 0; i < end; i += step) __builtin_prefetch(to + i, 1);
  }

  void write(const C* from, int64_t count, C* to) const {
    from_planes(from, kLanes<T>, count, problem.value_channels, to, problem.value_channels);
  }
  template <typename Stored>
  void write(const C* from, int64_t count, Stored* to) const {
    write(from, count, pixels.data());
    convert_run(pixels.data(), to, count * problem.value_channels);
  }
};

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PAIRWISE_ATTENTION_ROW_PLANES_H
