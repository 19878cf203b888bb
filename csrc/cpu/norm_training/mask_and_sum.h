// The backward pass of a ReLU in place, with the sums for that of the norm before it.
#if defined(SA_LAYERS_CPU_NORM_TRAINING_MASK_AND_SUM_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_NORM_TRAINING_MASK_AND_SUM_H
#undef SA_LAYERS_CPU_NORM_TRAINING_MASK_AND_SUM_H
#else
#define SA_LAYERS_CPU_NORM_TRAINING_MASK_AND_SUM_H
#endif

#include "cpu/norm_training/channels.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// A chunk of channels of a run. The gradient passes where the ReLU's input is NaN, as torch's does.
template <int kVectors, typename T, typename Lanes>
ALWAYS_INLINE void mask_and_sum_run(const MaskAndSum<T>& problem, int64_t first, int64_t count, int64_t channel,
                                    double* sums, Lanes lanes) {
  Vector<T> scale[kVectors], shift[kVectors], center[kVectors], sum[kVectors] = {}, product[kVectors] = {};
  load_chunk<T>(problem.scale + channel, scale, lanes);
  load_chunk<T>(problem.shift + channel, shift, lanes);
  load_chunk<T>(problem.center + channel, center, lanes);
  NextRun<kVectors, T> next_grad(problem.grad, problem.channels, channel, first, count);
  NextRun<kVectors, const T> next_pixels(problem.pixels, problem.channels, channel, first, count);
  T* grad = problem.grad.at(first) + channel;
  const T* pixel = problem.pixels.at(first) + channel;
  for (int64_t i = 0; i < count; ++i, grad += problem.grad.stride, pixel += problem.pixels.stride) {
    next_grad.prefetch();
    next_pixels.prefetch();
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const Vector<T> x = load(pixel + v * kLanes<T>, lanes), arriving = load(grad + v * kLanes<T>, lanes);
      const Vector<T> passing = scale[v] * x + shift[v] <= 0 ? Vector<T>{} : arriving;
      store(grad + v * kLanes<T>, passing, lanes);
      sum[v] += passing;
      product[v] += passing * (x - center[v]);
    }
  }
  add_run<T>(sum, sums + channel, problem.channels - channel);
  add_run<T>(product, sums + problem.channels + channel, problem.channels - channel);
}

// The sums of the rows first <= row < last, (2, channels).
template <typename T>
void mask_and_sum(const MaskAndSum<T>& problem, int64_t first, int64_t last, double* sums) {
  const int64_t run = run_rows(problem.channels);
  for (int64_t c = 0; c < 2 * problem.channels; ++c) sums[c] = 0;
  for (int64_t row = first; row < last; row += run) {
    for_each_chunk<T, kVectorBytes == 64 ? 4 : 2>(
        problem.channels, [&](int64_t channel, auto vectors, auto lanes) ALWAYS_INLINE_LAMBDA {
          mask_and_sum_run<vectors.value>(problem, row, min(run, last - row), channel, sums, lanes);
        });
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_NORM_TRAINING_MASK_AND_SUM_H
