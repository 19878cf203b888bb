// Whether kernels may skip tests for NaN.
#if defined(SA_LAYERS_CPU_SIMD_ALL_SMALL_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_SIMD_ALL_SMALL_H
#undef SA_LAYERS_CPU_SIMD_ALL_SMALL_H
#else
#define SA_LAYERS_CPU_SIMD_ALL_SMALL_H
#endif

#include "cpu/simd/vector.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Whether no sum of a few products of two such numbers overflows or is NaN.
template <typename T>
ALWAYS_INLINE bool all_small(const T* numbers, int64_t count) {
  using Integers = typename VectorOf<Compute<T>>::integers;
  Integers large{};
  const auto test = [&](int64_t i, auto lanes) ALWAYS_INLINE_LAMBDA {
    const Vector<T> number = load(numbers + i, lanes);
    large |= ~((number < Compute<T>(1e15)) & (number > Compute<T>(-1e15)));
  };
  int64_t i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>) test(i, AllLanes{});
  if (i < count) test(i, SomeLanes{0, count - i});
  bool result = true;
  for (int lane = 0; lane < kLanes<T>; ++lane) result = result && large[lane] == 0;
  return result;
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_SIMD_ALL_SMALL_H
