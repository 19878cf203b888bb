// The backward pass of a ReLU in place, with the sums for that of the norm before it.
#if defined(SA_LAYERS_CPU_NORM_TRAINING_MASK_AND_SUM_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_NORM_TRAINING_MASK_AND_SUM_H
#undef SA_LAYERS_CPU_NORM_TRAINING_MASK_AND_SUM_H
#else
#define SA_LAYERS_CPU_NORM_TRAINING_MASK_AND_SUM_H
#endif

#include "cpu/norm_training/problem.h"
#include "cpu/norm_training/run_sums.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Some vectors of kRows pixels. The gradient passes where the ReLU's input is NaN, as torch's does.
template <int kRows, typename T, typename Lanes>
ALWAYS_INLINE void mask_and_sum_vector(const MaskAndSum<T>& problem, int64_t row, int64_t channel,
                                       const RunSums<T>& sums, Lanes lanes) {
  const Vector<T> scale = load(problem.scale + channel, lanes), shift = load(problem.shift + channel, lanes);
  const Vector<T> center = load(problem.center + channel, lanes);
  Vector<T> sum{}, product{};
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) {
    T* const grad = problem.grad.at(row + i) + channel;
    const Vector<T> x = load(problem.pixels.at(row + i) + channel, lanes), arriving = load(grad, lanes);
    const Vector<T> passing = scale * x + shift <= 0 ? Vector<T>{} : arriving;
    store(grad, passing, lanes);
    sum += passing;
    product += passing * (x - center);
  }
  sums.add(channel, sum, product);
}

// The sums of the rows first <= row < last, (2, channels).
template <typename T>
void mask_and_sum(const MaskAndSum<T>& problem, int64_t first, int64_t last, double* sums) {
  RunSums<T> run(problem.channels);
  for (int64_t c = 0; c < 2 * problem.channels; ++c) sums[c] = 0;
  for (int64_t begin = first; begin < last; begin += kRunPixels) {
    for_each_block<4>(begin, min(last, begin + kRunPixels), [&](int64_t row, auto rows) ALWAYS_INLINE_LAMBDA {
      for_each_vector_of<T>(problem.channels, [&](int64_t channel, auto lanes) ALWAYS_INLINE_LAMBDA {
        mask_and_sum_vector<rows.value>(problem, row, channel, run, lanes);
      });
    });
    run.flush(problem.channels, sums);
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_NORM_TRAINING_MASK_AND_SUM_H
