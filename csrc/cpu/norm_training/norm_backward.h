// The gradient of a norm's input, which is linear in the gradient of its output and in its input.
#if defined(SA_LAYERS_CPU_NORM_TRAINING_NORM_BACKWARD_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_NORM_TRAINING_NORM_BACKWARD_H
#undef SA_LAYERS_CPU_NORM_TRAINING_NORM_BACKWARD_H
#else
#define SA_LAYERS_CPU_NORM_TRAINING_NORM_BACKWARD_H
#endif

#include "cpu/norm_training/channels.h"
#include "cpu/norm_training/problem.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

template <bool kHasStatistics, bool kAccumulates, typename T, typename Lanes>
ALWAYS_INLINE void norm_backward_vector(const T* grad, const T* pixel, const Factors<T>& factors, int64_t c, T* out,
                                        Lanes lanes) {
  Vector<T> result = load(factors.k1 + c, lanes) * load(grad + c, lanes);
  if constexpr (kHasStatistics) {
    const Vector<T> deviation = load(pixel + c, lanes) - load(factors.center + c, lanes);
    result += load(factors.k2 + c, lanes) * deviation + load(factors.k3 + c, lanes);
  }
  if constexpr (kAccumulates) result += load(out + c, lanes);
  store(out + c, result, lanes);
}

template <bool kHasStatistics, bool kAccumulates, typename T>
ALWAYS_INLINE void norm_backward_rows(const NormBackward<T>& problem, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; ++row) {
    const T *grad = problem.grad.at(row), *pixel = problem.pixels.at(row);
    T* const out = problem.out.at(row);
    for_each_vector_of<T>(problem.channels, [&](int64_t c, auto lanes) ALWAYS_INLINE_LAMBDA {
      norm_backward_vector<kHasStatistics, kAccumulates>(grad, pixel, problem.factors, c, out, lanes);
    });
  }
}

// The rows first <= row < last.
template <typename T>
void norm_backward(const NormBackward<T>& problem, int64_t first, int64_t last) {
  const bool has_statistics = problem.factors.k2 != nullptr;
  if (has_statistics && problem.accumulates) norm_backward_rows<true, true>(problem, first, last);
  if (has_statistics && !problem.accumulates) norm_backward_rows<true, false>(problem, first, last);
  if (!has_statistics && problem.accumulates) norm_backward_rows<false, true>(problem, first, last);
  if (!has_statistics && !problem.accumulates) norm_backward_rows<false, false>(problem, first, last);
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_NORM_TRAINING_NORM_BACKWARD_H
