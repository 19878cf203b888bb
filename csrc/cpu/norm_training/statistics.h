// Means and squared deviations of the channels of a map.
#if defined(SA_LAYERS_CPU_NORM_TRAINING_STATISTICS_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_NORM_TRAINING_STATISTICS_H
#undef SA_LAYERS_CPU_NORM_TRAINING_STATISTICS_H
#else
#define SA_LAYERS_CPU_NORM_TRAINING_STATISTICS_H
#endif

#include "cpu/norm_training/channels.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// The mean of the pixels so far, and their squared deviations from it, of every channel.
struct RunningStatistics {
  int64_t count;
  double *mean, *squares;
};

// Adds a chunk of channels of a run by Chan's formula, from sums about a center.
template <typename C>
__attribute__((noinline)) void merge_run(const C* center, const C* sums, const C* run_squares, int64_t count,
                                         int64_t channels, const RunningStatistics& before) {
  double* __restrict mean = before.mean, * __restrict squares = before.squares;
  const double all = static_cast<double>(before.count + count), share = count / all, weight = before.count * share;
  const double inverse = 1.0 / count;
  for (int64_t c = 0; c < channels; ++c) {
    const double sum = sums[c], delta = center[c] + inverse * sum - mean[c];
    mean[c] += share * delta;
    squares[c] += run_squares[c] - inverse * sum * sum + weight * delta * delta;
  }
}

// A chunk of channels of a run. Deviations are from the mean of the pixels before. If the run's own mean is far from
// that, so are the pixels from their common mean: nothing cancels, whatever the mean.
template <int kVectors, typename T, typename Lanes>
ALWAYS_INLINE void channel_statistics_run(const Statistics<T>& problem, int64_t first, int64_t count, int64_t channel,
                                          const RunningStatistics& before, Lanes lanes) {
  using C = Compute<T>;
  constexpr int64_t numbers = kVectors * kLanes<T>;
  const int64_t channels = min(numbers, problem.channels - channel);
  const RunningStatistics chunk{before.count, before.mean + channel, before.squares + channel};
  alignas(64) C centers[numbers] = {}, sums[numbers], squares[numbers];
  Vector<T> center[kVectors] = {}, sum[kVectors] = {}, square[kVectors] = {};
  const T* const from = problem.pixels.at(first) + channel;
  if (before.count == 0) {  // the center is the run's own mean
    for (int64_t i = 0; i < count; ++i) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        center[v] += load(from + i * problem.pixels.stride + v * kLanes<T>, lanes) * (C(1) / C(count));
      }
    }
    store_chunk<T>(center, centers);
  } else {
    for (int64_t i = 0; i < channels; ++i) centers[i] = static_cast<C>(chunk.mean[i]);
    load_chunk<T>(centers, center, AllLanes{});
  }
  NextRun<kVectors, const T> next(problem.pixels, problem.channels, channel, first, count);
  for (int64_t i = 0; i < count; ++i) {
    next.prefetch();
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const Vector<T> deviation = load(from + i * problem.pixels.stride + v * kLanes<T>, lanes) - center[v];
      sum[v] += deviation;
      square[v] += deviation * deviation;
    }
  }
  store_chunk<T>(sum, sums);
  store_chunk<T>(square, squares);
  merge_run(centers, sums, squares, count, channels, chunk);
}

// The mean of the rows first <= row < last, and the sum of squared deviations from it.
template <typename T>
void channel_statistics(const Statistics<T>& problem, int64_t first, int64_t last, double* mean, double* squares) {
  const int64_t run = run_rows(problem.channels);
  for (int64_t c = 0; c < problem.channels; ++c) mean[c] = squares[c] = 0;
  for (int64_t row = first; row < last; row += run) {
    const RunningStatistics before{row - first, mean, squares};
    for_each_chunk<T, 4>(problem.channels, [&](int64_t channel, auto vectors, auto lanes) ALWAYS_INLINE_LAMBDA {
      channel_statistics_run<vectors.value>(problem, row, min(run, last - row), channel, before, lanes);
    });
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_NORM_TRAINING_STATISTICS_H
