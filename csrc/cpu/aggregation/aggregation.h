// Aggregation and its two gradients. A kernel computes the tasks begin <= task < end; a task is one band of one weight
// map of one image.
#if defined(SA_LAYERS_CPU_AGGREGATION_AGGREGATION_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_AGGREGATION_AGGREGATION_H
#undef SA_LAYERS_CPU_AGGREGATION_AGGREGATION_H
#else
#define SA_LAYERS_CPU_AGGREGATION_AGGREGATION_H
#endif

#include "cpu/aggregation/loops.h"
#include "cpu/aggregation/value_gradient.h"
#include "cpu/aggregation/weight_gradient.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// output(c, p) = sum over t of weight(t, p) * value(c, source(t, p)). Each weight is loaded once for all channels of
// the block. `copy` holds one band a channel, followed by one more vector, since loads may read past the end of the
// last row.
template <int kChannels, typename T, typename Weights>
void gather(const Band& band, const BandTables& tables, const Weights& weights, const Compute<T>* copy, T* output,
            int64_t channel_stride) {
  const int64_t columns = band.footprint.columns.kernel, channel_size = band.size();
  for_each_vector<T>(band, tables,
                     [&](auto pair, int64_t pixel, int64_t second_pixel, int64_t offset, const int64_t* column_offsets,
                         auto lanes) ALWAYS_INLINE_LAMBDA {
                       constexpr bool kPair = decltype(pair)::value;
                       Vector<T> sums[kChannels] = {}, second_sums[kChannels] = {};
                       for_each_tap_row<kPair>(
                           band.footprint.rows.kernel, [&](auto first, auto second, int64_t i) ALWAYS_INLINE_LAMBDA {
                             for (int64_t j = 0; j < columns; ++j) {
                               const Compute<T>* values = copy + offset + i * band.tap_stride + column_offsets[j];
                               Vector<T> weight, second_weight;
                               if constexpr (first.value) weight = weights(i * columns + j, pixel, lanes);
                               if constexpr (second.value)
                                 second_weight = weights((i - 1) * columns + j, second_pixel, lanes);
#pragma GCC unroll 8
                               for (int c = 0; c < kChannels; ++c) {
                                 Vector<T> value = load(values + c * channel_size);
                                 if constexpr (first.value && second.value) keep_in_register(value);
                                 if constexpr (first.value) sums[c] += weight * value;
                                 if constexpr (second.value) second_sums[c] += second_weight * value;
                               }
                             }
                           });
                       for (int c = 0; c < kChannels; ++c) {
                         store(output + c * channel_stride + pixel, sums[c], lanes);
                         if constexpr (kPair) store(output + c * channel_stride + second_pixel, second_sums[c], lanes);
                       }
                     });
}

template <typename T>
void aggregation(const AggregationTasks& tasks, const T* value, const T* weight, const WeightStrides& strides,
                 T* output, int64_t begin, int64_t end) {
  const Aggregation& problem = tasks.problem;
  for (int64_t index = begin; index < end; ++index) {
    const AggregationTask task = tasks[index];
    const PlainWeights<T> weights{weight + strides.map(task), strides.tap};
    for_each_copied_block(
        problem, task, value, output,
        [&](auto width, const Band& band, const BandTables& tables, const Compute<T>* copy, T* maps,
            int64_t channel_stride) { gather<width.value>(band, tables, weights, copy, maps, channel_stride); });
  }
}

template <typename T>
void aggregation_value_gradient(const AggregationTasks& tasks, const T* grad_output, const T* weight,
                                const WeightStrides& strides, T* grad_value, int64_t begin, int64_t end) {
  const Aggregation& problem = tasks.problem;
  for (int64_t index = begin; index < end; ++index) {
    const AggregationTask task = tasks[index];
    const PlainWeights<T> weights{weight + strides.map(task), strides.tap};
    value_gradient_of_channels<T>(problem, task, weights, /*factors=*/nullptr, grad_output, grad_value);
  }
}

// The sink of correlate() that stores the sums.
template <typename T, typename Lanes>
struct WeightGradientSink {
  T* to;
  int64_t tap_stride;
  Lanes lanes;

  ALWAYS_INLINE Vector<T> scale(Vector<T> gradient) const { return gradient; }
  ALWAYS_INLINE void add(int64_t tap, Vector<T> sum) const { store(to + tap * tap_stride, sum, lanes); }
  ALWAYS_INLINE void finish() const {}
};

template <typename T>
void aggregation_weight_gradient(const AggregationTasks& tasks, const T* grad_output, const T* value, T* grad_weight,
                                 int64_t begin, int64_t end) {
  const Aggregation& problem = tasks.problem;
  const WeightStrides strides = WeightStrides::contiguous(problem);
  for (int64_t index = begin; index < end; ++index) {
    const AggregationTask task = tasks[index];
    T* const to = grad_weight + strides.map(task);
    correlate_channels(problem, task, grad_output, value, [=](int64_t pixel, auto lanes, int) ALWAYS_INLINE_LAMBDA {
      return WeightGradientSink<T, decltype(lanes)>{to + pixel, strides.tap, lanes};
    });
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_AGGREGATION_AGGREGATION_H
