// Means and squared deviations of the channels of a map.
#if defined(SA_LAYERS_CPU_NORM_TRAINING_STATISTICS_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_NORM_TRAINING_STATISTICS_H
#undef SA_LAYERS_CPU_NORM_TRAINING_STATISTICS_H
#else
#define SA_LAYERS_CPU_NORM_TRAINING_STATISTICS_H
#endif

#include "cpu/norm_training/problem.h"
#include "cpu/norm_training/run_sums.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// The sums over a run of the deviations from a center, and of their squares.
template <typename T>
ALWAYS_INLINE void add_deviations(const Statistics<T>& problem, int64_t first, int64_t last, const Compute<T>* center,
                                  const RunSums<T>& run) {
  for_each_block<4>(first, last, [&](int64_t row, auto rows) ALWAYS_INLINE_LAMBDA {
    for_each_vector_of<T>(problem.channels, [&](int64_t channel, auto lanes) ALWAYS_INLINE_LAMBDA {
      const Vector<T> origin = load(center + channel, lanes);
      Vector<T> sum{}, square{};
#pragma GCC unroll 4
      for (int i = 0; i < rows.value; ++i) {
        const Vector<T> deviation = load(problem.pixels.at(row + i) + channel, lanes) - origin;
        sum += deviation;
        square += deviation * deviation;
      }
      run.add(channel, sum, square);
    });
  });
}

// Chan's formula for `before` pixels and a run of `count`, whose sums are about `center`.
template <typename C>
void merge_run(const C* center, const C* sums, const C* run_squares, int64_t before, int64_t count, int64_t channels,
               double* __restrict mean, double* __restrict squares) {
  const double all = static_cast<double>(before + count), share = count / all, weight = before * share;
  const double inverse = 1.0 / count;
  for (int64_t c = 0; c < channels; ++c) {
    const double sum = sums[c], delta = center[c] + inverse * sum - mean[c];
    mean[c] += share * delta;
    squares[c] += run_squares[c] - inverse * sum * sum + weight * delta * delta;
  }
}

// The mean of the rows first <= row < last, and the sum of squared deviations from it.
//
// The sums of a run are about the mean of the rows before. If the run's own mean differs from that, so do the results,
// by as much; so nothing cancels, whatever the mean. The center of the first run is its own mean.
template <typename T>
void channel_statistics(const Statistics<T>& problem, int64_t first, int64_t last, double* mean, double* squares) {
  using C = Compute<T>;
  const int64_t channels = problem.channels;
  RunSums<T> run(channels);
  const Scratch<C> center(channels);
  for (int64_t c = 0; c < channels; ++c) mean[c] = squares[c] = center.data()[c] = 0;
  const int64_t first_run = min(last, first + kRunPixels);
  add_deviations(problem, first, first_run, center.data(), run);
  for (int64_t c = 0; c < channels; ++c) center.data()[c] = run.first()[c] / C(first_run - first);
  for (int64_t row = first; row < last; row += kRunPixels) {
    const int64_t count = min(kRunPixels, last - row);
    run.clear();
    add_deviations(problem, row, row + count, center.data(), run);
    merge_run(center.data(), run.first(), run.second(), row - first, count, channels, mean, squares);
    for (int64_t c = 0; c < channels; ++c) center.data()[c] = static_cast<C>(mean[c]);
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_NORM_TRAINING_STATISTICS_H
