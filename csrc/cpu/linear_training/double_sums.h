// Sums over many pixels in float64, of float32 sums over a few.
#if defined(SA_LAYERS_CPU_LINEAR_TRAINING_DOUBLE_SUMS_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_LINEAR_TRAINING_DOUBLE_SUMS_H
#undef SA_LAYERS_CPU_LINEAR_TRAINING_DOUBLE_SUMS_H
#else
#define SA_LAYERS_CPU_LINEAR_TRAINING_DOUBLE_SUMS_H
#endif

#include "cpu/simd/vector.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

typedef float HalfVector __attribute__((vector_size(kVectorBytes / 2)));

inline Vector<double> load_as_doubles(const float* from) {
  HalfVector half;
  __builtin_memcpy(&half, from, sizeof(half));
  return __builtin_convertvector(half, Vector<double>);
}

// Adds a vector to as many numbers.
ALWAYS_INLINE void add_to_doubles(double* to, Vector<float> from) {
  float all[kLanes<float>];
  store(all, from);
#pragma GCC unroll 2
  for (int64_t i = 0; i < kLanes<float>; i += kLanes<double>) store(to + i, load(to + i) + load_as_doubles(all + i));
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_LINEAR_TRAINING_DOUBLE_SUMS_H
