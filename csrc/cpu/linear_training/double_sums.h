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

// Adds a vector to as many numbers. Without intrinsics, GCC 12 would keep the vector in memory wherever it is summed.
ALWAYS_INLINE void add_to_doubles(double* to, Vector<float> from) {
#if SA_LAYERS_TARGET == SA_LAYERS_AVX512
  constexpr __mmask8 all = 0xff;
  const Vector<double> low = _mm512_maskz_cvtps_pd(all, _mm512_maskz_extractf32x8_ps(all, from, 0));
  const Vector<double> high = _mm512_maskz_cvtps_pd(all, _mm512_maskz_extractf32x8_ps(all, from, 1));
#elif SA_LAYERS_TARGET == SA_LAYERS_AVX2
  const Vector<double> low = _mm256_cvtps_pd(_mm256_castps256_ps128(from));
  const Vector<double> high = _mm256_cvtps_pd(_mm256_extractf128_ps(from, 1));
#else
  const Vector<double> low = {from[0], from[1]}, high = {from[2], from[3]};
#endif
  store(to, load(to) + low);
  store(to + kLanes<double>, load(to + kLanes<double>) + high);
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_LINEAR_TRAINING_DOUBLE_SUMS_H
