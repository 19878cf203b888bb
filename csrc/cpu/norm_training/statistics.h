// Means and squared deviations of the channels of a map.
#if defined(SA_LAYERS_CPU_NORM_TRAINING_STATISTICS_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_NORM_TRAINING_STATISTICS_H
#undef SA_LAYERS_CPU_NORM_TRAINING_STATISTICS_H
#else
#define SA_LAYERS_CPU_NORM_TRAINING_STATISTICS_H
#endif

#include "cpu/norm_training/chunks.h"
#include "cpu/norm_training/problem.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// The chunk of a run stays in the first-level cache and is read twice: for its mean, and for the squared deviations
// from it. So no sum of squares cancels, whatever the mean.
template <int kVectors, typename T, typename Lanes>
ALWAYS_INLINE void channel_statistics_run(const Statistics<T>& problem, int64_t first, int64_t count, int64_t before,
                                          int64_t channel, double* mean, double* squares, Lanes lanes) {
  using C = Compute<T>;
  constexpr int64_t width = kVectors * kLanes<T>;
  Vector<T> center[kVectors] = {}, sum[kVectors] = {}, square[kVectors] = {};
  const T* from = problem.pixels.at(first) + channel;
  for (int64_t i = 0; i < count; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      center[v] += load(from + i * problem.pixels.stride + v * kLanes<T>, lanes);
    }
  }
  const C inverse = C(1) / C(count);
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) center[v] *= inverse;
  for (int64_t i = 0; i < count; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const Vector<T> deviation = load(from + i * problem.pixels.stride + v * kLanes<T>, lanes) - center[v];
      sum[v] += deviation;
      square[v] += deviation * deviation;
    }
  }
  alignas(64) C centers[width] = {}, sums[width] = {}, run_squares[width] = {};
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    store(centers + v * kLanes<T>, center[v]);
    store(sums + v * kLanes<T>, sum[v]);
    store(run_squares + v * kLanes<T>, square[v]);
  }
  // Chan's formula for the pixels before the run and those of the run.
  const double all = static_cast<double>(before + count), share = count / all, weight = before * share;
  const double inverse_count = 1.0 / count;
  const int64_t numbers = width - kLanes<T> + lane_count<T>(lanes);
  for (int64_t c = 0; c < numbers; ++c) {
    const double delta = centers[c] + inverse_count * sums[c] - mean[channel + c];
    mean[channel + c] += share * delta;
    squares[channel + c] += run_squares[c] - inverse_count * sums[c] * sums[c] + weight * delta * delta;
  }
}

// The mean of the rows first <= row < last, and the sum of squared deviations from it.
template <typename T>
void channel_statistics(const Statistics<T>& problem, int64_t first, int64_t last, double* mean, double* squares) {
  for (int64_t c = 0; c < problem.channels; ++c) mean[c] = squares[c] = 0;
  for (int64_t row = first; row < last; row += kRunPixels) {
    for_each_chunk<T, 4>(problem.channels, [&](int64_t channel, auto vectors, auto lanes) ALWAYS_INLINE_LAMBDA {
      channel_statistics_run<vectors.value>(problem, row, min(kRunPixels, last - row), row - first, channel, mean,
                                            squares, lanes);
    });
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_NORM_TRAINING_STATISTICS_H
