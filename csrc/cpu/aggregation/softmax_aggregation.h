// Softmax over the footprint and aggregation in one pass, and the gradients, which recompute the softmax from the
// logits, their maximum over the taps and its normalizer, the sum of exp(logit - maximum). The two stay apart: their
// logsumexp would lose the bits of the normalizer beside a large maximum.
#if defined(SA_LAYERS_CPU_AGGREGATION_SOFTMAX_AGGREGATION_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_AGGREGATION_SOFTMAX_AGGREGATION_H
#undef SA_LAYERS_CPU_AGGREGATION_SOFTMAX_AGGREGATION_H
#else
#define SA_LAYERS_CPU_AGGREGATION_SOFTMAX_AGGREGATION_H
#endif

#include "cpu/aggregation/loops.h"
#include "cpu/aggregation/value_gradient.h"
#include "cpu/aggregation/weight_gradient.h"
#include "cpu/simd/math.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// The weights stay unnormalised; the sums are divided by their total. They are halved until the largest times the
// number of taps is at most 1, so that the sums overflow no sooner than an average. The first pass over the taps, for
// the maximum, keeps the logits in `scratch`, taps * kLanes<T> elements: in memory, those of a pixel may be a power of
// two apart, and compete for the same lines of the cache. Computing the exponentials costs little beside the sums of
// eight channels.
template <int kChannels, typename T>
void softmax_gather(const Band& band, const BandTables& tables, const PlainWeights<T>& logits, const Compute<T>* copy,
                    T* output, int64_t channel_stride, Compute<T>* max_logits, Compute<T>* normalizers,
                    Compute<T>* scratch) {
  const int64_t taps = band.footprint.taps(), channel_size = band.size();
  const int64_t rows = band.footprint.rows.kernel, columns = band.footprint.columns.kernel;
  const int halvings = ceil_log2(taps);
  const Compute<T> doublings = static_cast<Compute<T>>(int64_t{1} << halvings);
  const auto sum = [&](int64_t pixel, int64_t offset, const int64_t* column_offsets, auto lanes) ALWAYS_INLINE_LAMBDA {
    Vector<T> max_logit = logits(0, pixel, lanes);
    store(scratch, max_logit);
    for (int64_t tap = 1; tap < taps; ++tap) {
      const Vector<T> logit = logits(tap, pixel, lanes);
      store(scratch + tap * kLanes<T>, logit);
      max_logit = logit > max_logit ? logit : max_logit;
    }
    Vector<T> total = {}, sums[kChannels] = {};
    const Compute<T>* logit = scratch;
    for (int64_t i = 0; i < rows; ++i) {
      const Compute<T>* row = copy + offset + i * band.tap_stride;
      for (int64_t j = 0; j < columns; ++j, logit += kLanes<T>) {
        const Vector<T> weight = exp(load(logit) - max_logit, halvings);
        const Compute<T>* values = row + column_offsets[j];
        total += weight;
#pragma GCC unroll 8
        for (int c = 0; c < kChannels; ++c) sums[c] += weight * load(values + c * channel_size);
      }
    }
    const Vector<T> factor = 1 / total;
    for (int c = 0; c < kChannels; ++c) store(output + c * channel_stride + pixel, sums[c] * factor, lanes);
    store(max_logits + pixel, max_logit, lanes);
    store(normalizers + pixel, total * doublings, lanes);
  };
  for_each_vector<T, /*kPairs=*/false>(
      band, tables,
      [&](auto, int64_t pixel, int64_t, int64_t offset, const int64_t* column_offsets, auto lanes)
          ALWAYS_INLINE_LAMBDA { sum(pixel, offset, column_offsets, lanes); });
}

template <typename T>
void softmax_aggregation(const AggregationTasks& tasks, const T* value, const T* logits, const WeightStrides& strides,
                         T* output, Compute<T>* max_logits, Compute<T>* normalizers, int64_t begin, int64_t end) {
  const Aggregation& problem = tasks.problem;
  const Scratch<Compute<T>> scratch(problem.footprint.taps() * kLanes<T>);
  for (int64_t index = begin; index < end; ++index) {
    const AggregationTask task = tasks[index];
    const PlainWeights<T> weights{logits + strides.map(task), strides.tap};
    const int64_t map = task.softmax_map(problem);
    for_each_copied_block(problem, task, value, output,
                          [&](auto width, const Band& band, const BandTables& tables, const Compute<T>* copy, T* maps,
                              int64_t channel_stride) {
                            softmax_gather<width.value>(band, tables, weights, copy, maps, channel_stride,
                                                        max_logits + map, normalizers + map, scratch.data());
                          });
  }
}

// exp(logit - maximum): the softmax without its normalizer.
template <typename T>
struct Exponentials {
  PlainWeights<T> logits;
  const Compute<T>* max_logits;

  template <typename Lanes>
  ALWAYS_INLINE Vector<T> operator()(int64_t tap, int64_t pixel, Lanes lanes) const {
    return exp(logits(tap, pixel, lanes) - load(max_logits + pixel, lanes));
  }
};

// The gradients of the output are divided by the normalizers instead of every weight.
template <typename T>
void softmax_aggregation_value_gradient(const AggregationTasks& tasks, const T* grad_output, const T* logits,
                                        const WeightStrides& strides, const Compute<T>* max_logits,
                                        const Compute<T>* normalizers, T* grad_value, int64_t begin, int64_t end) {
  const Aggregation& problem = tasks.problem;
  const int64_t pixels = problem.footprint.output_pixels();
  const Scratch<Compute<T>> factors(pixels);
  for (int64_t index = begin; index < end; ++index) {
    const AggregationTask task = tasks[index];
    const int64_t map = task.softmax_map(problem);
    for (int64_t i = 0; i < pixels; ++i) factors.data()[i] = 1 / normalizers[map + i];
    const Exponentials<T> weights{{logits + strides.map(task), strides.tap}, max_logits + map};
    value_gradient_of_channels<T>(problem, task, weights, factors.data(), grad_output, grad_value);
  }
}

// The sink of correlate() for the gradient of the logits. With w the exponentials, n their normalizer and g the
// gradient of the weights, which includes the factor 1/n, it is w * (g - sum over the taps of w * g / n). The sum is
// known after the last tap; until then w and g are in scratch: 2 * taps * kLanes<T> elements.
template <typename T, typename Lanes>
struct LogitsGradientSink {
  const Exponentials<T>& weights;
  int64_t taps, pixel;
  Lanes lanes;
  Compute<T>* scratch;
  T* to;
  int64_t tap_stride;
  Vector<T> factor, sum = {};

  ALWAYS_INLINE Vector<T> scale(Vector<T> gradient) const { return gradient * factor; }
  ALWAYS_INLINE void add(int64_t tap, Vector<T> gradient) {
    const Vector<T> weight = weights(tap, pixel, lanes);
    sum += weight * gradient;
    store(scratch + 2 * tap * kLanes<T>, weight);
    store(scratch + (2 * tap + 1) * kLanes<T>, gradient);
  }
  ALWAYS_INLINE void finish() const {
    const Vector<T> mean = sum * factor;
    for (int64_t tap = 0; tap < taps; ++tap) {
      const Compute<T>* from = scratch + 2 * tap * kLanes<T>;
      store(to + tap * tap_stride + pixel, load(from) * (load(from + kLanes<T>) - mean), lanes);
    }
  }
};

template <typename T>
void softmax_aggregation_logits_gradient(const AggregationTasks& tasks, const T* grad_output, const T* value,
                                         const T* logits, const WeightStrides& strides, const Compute<T>* max_logits,
                                         const Compute<T>* normalizers, T* grad_logits,
                                         const WeightStrides& grad_strides, int64_t begin, int64_t end) {
  const Aggregation& problem = tasks.problem;
  const int64_t taps = problem.footprint.taps(), scratch_size = 2 * taps * kLanes<T>;
  const Scratch<Compute<T>> scratch(2 * scratch_size);
  for (int64_t index = begin; index < end; ++index) {
    const AggregationTask task = tasks[index];
    const int64_t map = task.softmax_map(problem);
    const Exponentials<T> weights{{logits + strides.map(task), strides.tap}, max_logits + map};
    T* const to = grad_logits + grad_strides.map(task);
    correlate_channels(
        problem, task, grad_output, value, [&](int64_t pixel, auto lanes, int second) ALWAYS_INLINE_LAMBDA {
          const Vector<T> factor = 1 / load(normalizers + map + pixel, lanes);
          return LogitsGradientSink<T, decltype(lanes)>{
              weights, taps, pixel, lanes, scratch.data() + second * scratch_size, to, grad_strides.tap, factor};
        });
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_AGGREGATION_SOFTMAX_AGGREGATION_H
