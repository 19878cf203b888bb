// Softmax over the footprint and aggregation in one pass, and the gradients, which recompute the softmax from the
// logits and their logsumexp.
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

// The softmax, recomputed from logits and logsumexp.
template <typename T>
struct SoftmaxWeights {
  PlainWeights<T> logits;
  const Compute<T>* logsumexp;

  template <typename Lanes>
  ALWAYS_INLINE Vector<T> operator()(int64_t tap, int64_t pixel, Lanes lanes) const {
    return exp(logits(tap, pixel, lanes) - load(logsumexp + pixel, lanes));
  }
};

// The weights stay unnormalised; the sums are divided by their total. The first pass over the taps, for the maximum,
// brings the logits into the cache; computing the exponentials costs little beside the sums of eight channels.
template <int kChannels, typename T>
void softmax_gather(const Band& band, const BandTables& tables, const PlainWeights<T>& logits, const Compute<T>* copy,
                    T* output, int64_t channel_stride, Compute<T>* logsumexp) {
  const int64_t taps = band.footprint.taps(), columns = band.footprint.columns.kernel, channel_size = band.size();
  const auto sum = [&](int64_t pixel, int64_t offset, auto lanes) ALWAYS_INLINE_LAMBDA {
    Vector<T> max_logit = logits(0, pixel, lanes);
    for (int64_t tap = 1; tap < taps; ++tap) {
      const Vector<T> logit = logits(tap, pixel, lanes);
      max_logit = logit > max_logit ? logit : max_logit;
    }
    Vector<T> total = {}, sums[kChannels] = {};
    for (int64_t tap = 0; tap < taps; ++tap) {
      const Vector<T> weight = exp(load(logits.data + tap * logits.tap_stride + pixel, lanes) - max_logit);
      const Compute<T>* values = copy + offset + tap / columns * band.tap_stride + tables.offset(band, tap % columns);
      total += weight;
#pragma GCC unroll 8
      for (int c = 0; c < kChannels; ++c) sums[c] += weight * load(values + c * channel_size);
    }
    for (int c = 0; c < kChannels; ++c) store(output + c * channel_stride + pixel, sums[c] / total, lanes);
    store(logsumexp + pixel, max_logit + log(total), lanes);
  };
  for_each_vector<T, /*kPairs=*/false>(band, [&](auto, int64_t pixel, int64_t, int64_t offset, auto lanes)
                                                 ALWAYS_INLINE_LAMBDA { sum(pixel, offset, lanes); });
}

template <typename T>
void softmax_aggregation(const AggregationTasks& tasks, const T* value, const T* logits, T* output,
                         Compute<T>* logsumexp, int64_t begin, int64_t end) {
  const Aggregation& problem = tasks.problem;
  const int64_t pixels = problem.footprint.output_pixels();
  for (int64_t index = begin; index < end; ++index) {
    const AggregationTask task = tasks[index];
    const PlainWeights<T> weights{logits + task.weight_map(problem), pixels};
    Compute<T>* const to = logsumexp + task.logsumexp_map(problem);
    for_each_copied_block(problem, task, value, output,
                          [&](auto width, const Band& band, const BandTables& tables, const Compute<T>* copy, T* maps,
                              int64_t channel_stride) {
                            softmax_gather<width.value>(band, tables, weights, copy, maps, channel_stride, to);
                          });
  }
}

template <typename T>
void softmax_aggregation_value_gradient(const AggregationTasks& tasks, const T* grad_output, const T* logits,
                                        const Compute<T>* logsumexp, T* grad_value, int64_t begin, int64_t end) {
  const Aggregation& problem = tasks.problem;
  for (int64_t index = begin; index < end; ++index) {
    const AggregationTask task = tasks[index];
    const SoftmaxWeights<T> weights{{logits + task.weight_map(problem), problem.footprint.output_pixels()},
                                    logsumexp + task.logsumexp_map(problem)};
    transposed_gather_channels(problem, task, weights, grad_output, grad_value);
  }
}

// The Jacobian of the softmax needs, for each pixel, the sum over the taps of weight * gradient of the weight. It
// equals the sum over the channels of gradient * output, which needs no pass over the taps.
template <typename T>
void sum_products(const Aggregation& problem, const AggregationTask& task, const T* grad_output, const T* output,
                  Compute<T>* sums) {
  const int64_t pixels = problem.footprint.output_pixels(), width = problem.footprint.columns.output_size();
  const int64_t begin = task.row_begin * width, end = task.row_end * width;
  const int64_t channels = problem.sharing(task.weight_channel), step = problem.weight_channels * pixels;
  grad_output += task.output_map(problem), output += task.output_map(problem);
  for (int64_t i = begin; i < end; i += kLanes<T>) {
    Vector<T> sum = {};
    const auto add_channels = [&](auto lanes) ALWAYS_INLINE_LAMBDA {
      for (int64_t c = 0; c < channels; ++c) {
        sum += load(grad_output + c * step + i, lanes) * load(output + c * step + i, lanes);
      }
    };
    if (i + kLanes<T> <= end) {
      add_channels(AllLanes{});
    } else {
      add_channels(SomeLanes{0, end - i});
    }
    store(sums + i - begin, sum);
  }
}

template <typename T>
void softmax_aggregation_logits_gradient(const AggregationTasks& tasks, const T* grad_output, const T* value,
                                         const T* logits, const T* output, const Compute<T>* logsumexp, T* grad_logits,
                                         int64_t begin, int64_t end) {
  const Aggregation& problem = tasks.problem;
  const int64_t pixels = problem.footprint.output_pixels(), width = problem.footprint.columns.output_size();
  for (int64_t index = begin; index < end; ++index) {
    const AggregationTask task = tasks[index];
    const Scratch<Compute<T>> products((task.row_end - task.row_begin) * width + kLanes<T>);
    sum_products(problem, task, grad_output, output, products.data());
    const Compute<T>* const mean = products.data() - task.row_begin * width;
    const SoftmaxWeights<T> weights{{logits + task.weight_map(problem), problem.footprint.output_pixels()},
                                    logsumexp + task.logsumexp_map(problem)};
    T* const to = grad_logits + task.weight_map(problem);
    correlate_channels(problem, task, grad_output, value,
                       [=](int64_t tap, int64_t pixel, auto lanes, Vector<T> grad_weight) ALWAYS_INLINE_LAMBDA {
                         const Vector<T> gradient = weights(tap, pixel, lanes) * (grad_weight - load(mean + pixel));
                         store(to + tap * pixels + pixel, gradient, lanes);
                       });
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_AGGREGATION_SOFTMAX_AGGREGATION_H
