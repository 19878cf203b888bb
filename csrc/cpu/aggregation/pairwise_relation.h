// The relations that repeat a query or a key for every tap. The products of the two, 'hadamard' and 'dot', are
// gradients of an aggregation: see binding.cpp.
#if defined(SA_LAYERS_CPU_AGGREGATION_PAIRWISE_RELATION_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_AGGREGATION_PAIRWISE_RELATION_H
#undef SA_LAYERS_CPU_AGGREGATION_PAIRWISE_RELATION_H
#else
#define SA_LAYERS_CPU_AGGREGATION_PAIRWISE_RELATION_H
#endif

#include "cpu/aggregation/band.h"
#include "cpu/aggregation/problem.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// to[tap][p] = query_sign * centre[p] + key_sign * key[source(tap, p)]. An operand whose sign is zero is not read.
template <typename T>
void compute_relation(const Band& band, const BandTables& tables, const T* centres, const Compute<T>* copy,
                      Compute<T> query_sign, Compute<T> key_sign, T* to) {
  const int64_t width = band.footprint.columns.output_size(), pixels = band.footprint.output_pixels();
  const int64_t kernel_columns = band.footprint.columns.kernel;
  const auto compute_vector = [&](int64_t tap, int64_t pixel, const Compute<T>* key, auto lanes) ALWAYS_INLINE_LAMBDA {
    Vector<T> result = {};
    if (query_sign != 0) result = load(centres + pixel, lanes);
    if (key_sign != 0) result += key_sign * load(key);
    store(to + tap * pixels + pixel, result, lanes);
  };
  for (int64_t tap = 0; tap < band.footprint.taps(); ++tap) {
    const Compute<T>* under_tap = copy + tap / kernel_columns * band.tap_stride;
    const int64_t column_tap = tap % kernel_columns, offset = tables.offsets(0)[column_tap];
    for (int64_t row = band.row_begin; row < band.row_end; ++row) {
      const Compute<T>* keys = under_tap + band.row_offset(row);
      if (band.clamped()) {
        for (int64_t i = 0; i < tables.vector_count; ++i) {
          const ColumnVector& vector = tables[i];
          compute_vector(tap, row * width + vector.column, keys + vector.column + tables.offsets(i)[column_tap],
                         SomeLanes{0, vector.end});
        }
        continue;
      }
      for (int64_t column = 0; column < width; column += kLanes<T>) {
        if (column + kLanes<T> <= width) {
          compute_vector(tap, row * width + column, keys + offset + column, AllLanes{});
        } else {
          compute_vector(tap, row * width + column, keys + offset + column, SomeLanes{0, width - column});
        }
      }
    }
  }
}

// `centres` are the queries of the output pixels, (N, C, Ho, Wo). A concatenation has 2 * C channels, the other
// relations C.
template <typename T>
void pairwise_relation(const AggregationTasks& tasks, bool concatenate, Compute<T> key_sign, const T* centres,
                       const T* key, T* relation, int64_t begin, int64_t end) {
  const Aggregation& problem = tasks.problem;
  const int64_t map_size = problem.footprint.taps() * problem.footprint.output_pixels();
  for (int64_t index = begin; index < end; ++index) {
    const AggregationTask task = tasks[index];
    const Band band(problem.footprint, task.row_begin, task.row_end, kLanes<T>);
    const BandTables tables(band);
    const Scratch<Compute<T>> copy(band.size() + kLanes<T>);
    copy_band(band, tables, key + task.value_map(problem), copy.data());
    centres += task.output_map(problem);
    if (concatenate) {
      T* const to = relation + (task.image * 2 * problem.channels + task.weight_channel) * map_size;
      compute_relation<T>(band, tables, centres, copy.data(), 1, 0, to);
      compute_relation<T>(band, tables, centres, copy.data(), 0, 1, to + problem.channels * map_size);
    } else {
      compute_relation<T>(band, tables, centres, copy.data(), 1, key_sign,
                          relation + WeightStrides::contiguous(problem).map(task));
    }
    centres -= task.output_map(problem);
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_AGGREGATION_PAIRWISE_RELATION_H
