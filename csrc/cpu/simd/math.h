// exp and 2^x of vectors.
#if defined(SA_LAYERS_CPU_SIMD_MATH_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_SIMD_MATH_H
#undef SA_LAYERS_CPU_SIMD_MATH_H
#else
#define SA_LAYERS_CPU_SIMD_MATH_H
#endif

#include "cpu/simd/vector.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// 2^-halvings * exp(x), for x <= 0: a softmax relative to the largest logit. The factor costs nothing, and with enough
// halvings a weighted sum cannot overflow before it is normalised.
//
// exp(x) = 2^n * exp(r) with |r| <= log(2) / 2, where the Taylor series up to the seventh power has an error below
// 1e-8. Results below the normal numbers are 0; NaN stays NaN.
ALWAYS_INLINE Vector<float> exp(Vector<float> x, int halvings = 0) {
  const Vector<float> low = broadcast<float>(0.693147181f * halvings - 87.3f);
  const Bits vanishes = x < low;
  x = vanishes ? low : x;
  // Adding 1.5 * 2^23 rounds to an integer, which is then in the low bits; 127 more make it an exponent.
  const Vector<float> rounder = broadcast<float>(12583039.0f - halvings);
  const Vector<float> shifted = x * 1.44269504f + rounder, n = shifted - rounder;
  const Vector<float> r =
      (x - n * 0.693145752f) - n * 1.42860677e-6f;  // log(2) in two parts; the product with the first is exact
  // In pairs of coefficients, whose sums do not wait for each other.
  const Vector<float> r2 = r * r;
  const Vector<float> high = (r * (1.0f / 5040) + (1.0f / 720)) * r2 + (r * (1.0f / 120) + (1.0f / 24));
  const Vector<float> y = (high * r2 + (r * (1.0f / 6) + 0.5f)) * r2 + (r + 1.0f);
  const Vector<float> power = bit_cast<Vector<float>>(bit_cast<Bits>(shifted) << 23);
  return y * (vanishes ? Vector<float>{} : power);
}

// float64 is for gradient checks: accurate rather than fast.
inline Vector<double> exp(Vector<double> x, int halvings = 0) {
  const double scale = 1.0 / (int64_t{1} << halvings);
  for (int lane = 0; lane < kLanes<double>; ++lane) x[lane] = scale * __builtin_exp(x[lane]);
  return x;
}

// 2^x, for softmaxes in base 2: x splits into its integer and its fraction without a multiplication. The factor log2(e)
// is folded into the weights of the layer that computes the logits.

// For x <= 0; NaN stays NaN. The polynomials are of degree five, with a relative error of at most 7.5e-8.
ALWAYS_INLINE Vector<float> exp2(Vector<float> x) {
#if SA_LAYERS_TARGET == SA_LAYERS_AVX512
  constexpr __mmask16 all = 0xffff;  // GCC 12 warns of undefined lanes in the intrinsics without a mask
  const Vector<float> r = _mm512_maskz_reduce_ps(all, x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // 0 <= r < 1
  Vector<float> y = r * 0.00187757658f + 0.00898934063f;
  y = y * r + 0.0558263175f;
  y = y * r + 0.240153611f;
  y = y * r + 0.693153083f;
  return _mm512_maskz_scalef_ps(all, y * r + 0.99999994f, x);
#else
  x = maximum(broadcast<float>(-126.0f), x);  // the smallest power is negligible beside the largest, 1
  // Adding 1.5 * 2^23 rounds to an integer, which is then in the low bits; 127 more make it an exponent.
  const Vector<float> rounder = broadcast<float>(12583039.0f), shifted = x + rounder;
  const Vector<float> r = x - (shifted - rounder);  // |r| <= 1/2
  Vector<float> y = r * 0.0013276472f + 0.00967554133f;
  y = y * r + 0.0555071327f;
  y = y * r + 0.240221197f;
  y = y * r + 0.693146967f;
  return (y * r + 1.0f) * bit_cast<Vector<float>>(bit_cast<Bits>(shifted) << 23);
#endif
}

// float64 is for gradient checks: accurate rather than fast.
ALWAYS_INLINE Vector<double> exp2(Vector<double> x) {
  for (int lane = 0; lane < kLanes<double>; ++lane) x[lane] = __builtin_exp2(x[lane]);
  return x;
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_SIMD_MATH_H
