// Softmax over the taps of a footprint for vectors of logits, in base 2, computed in the loops that use its weights.
#if defined(SA_LAYERS_CPU_PAIRWISE_ATTENTION_SOFTMAX_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PAIRWISE_ATTENTION_SOFTMAX_H
#undef SA_LAYERS_CPU_PAIRWISE_ATTENTION_SOFTMAX_H
#else
#define SA_LAYERS_CPU_PAIRWISE_ATTENTION_SOFTMAX_H
#endif

#include "cpu/simd/math.h"
#include "footprint.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// The maximum of the logits over the taps, `step` apart. Four chains of comparisons, since each waits for the one
// before it.
template <typename C>
ALWAYS_INLINE Vector<C> max_logit(const C* logits, int64_t taps, int64_t step) {
  Vector<C> max_logits[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) max_logits[i] = load(logits + min(i, taps - 1) * step);
  int64_t tap = 4;
  for (; tap + 4 <= taps; tap += 4) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) max_logits[i] = maximum(load(logits + (tap + i) * step), max_logits[i]);
  }
  for (; tap < taps; ++tap) max_logits[0] = maximum(load(logits + tap * step), max_logits[0]);
  return maximum(maximum(max_logits[0], max_logits[1]), maximum(max_logits[2], max_logits[3]));
}

// Softmax over taps that are `step` apart, for kVectors vectors of logits; the caller divides by `totals`, which are at
// most 1, so that weighted sums overflow no sooner than an average. The first loop over the taps computes the weights,
// overlapped with loading the values, and stores them if another loop follows.
template <typename C, int kVectors = 1>
struct FootprintSoftmax {
  C* logits;
  int64_t taps, step;
  Vector<C> exponents[kVectors], totals[kVectors] = {};  // weights are relative to 2^exponent

  FootprintSoftmax(C* logits_, int64_t taps_, int64_t step_) : logits(logits_), taps(taps_), step(step_) {
    const C halvings = static_cast<C>(64 - __builtin_clzll(taps));  // ceil_log2 would loop for every pixel
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) exponents[v] = max_logit(logits + v * kLanes<C>, taps, step) + halvings;
  }

  // Calls body(tap, weights) for all taps.
  template <typename Body>
  ALWAYS_INLINE void for_each_tap(bool first, bool last, const Body& body) {
    Vector<C> weights[kVectors];
    if (!first) {
      for (int64_t tap = 0; tap < taps; ++tap) {
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) weights[v] = load(logits + tap * step + v * kLanes<C>);
        body(tap, weights);
      }
      return;
    }
    Vector<C> sums[kVectors] = {};
    const auto compute = [&](int64_t tap, bool keep) ALWAYS_INLINE_LAMBDA {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        C* const logit = logits + tap * step + v * kLanes<C>;
        weights[v] = exp2(load(logit) - exponents[v]);
        sums[v] += weights[v];
        if (keep) store(logit, weights[v]);
      }
      body(tap, weights);
    };
    if (last) {
      for (int64_t tap = 0; tap < taps; ++tap) compute(tap, false);
    } else {
      for (int64_t tap = 0; tap < taps; ++tap) compute(tap, true);
    }
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) totals[v] = sums[v];
  }
};

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PAIRWISE_ATTENTION_SOFTMAX_H
