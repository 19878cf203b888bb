// Loops over the channels of a map in chunks whose sums stay in registers, and the sums of runs in float64.
#if defined(SA_LAYERS_CPU_NORM_TRAINING_CHUNKS_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_NORM_TRAINING_CHUNKS_H
#undef SA_LAYERS_CPU_NORM_TRAINING_CHUNKS_H
#else
#define SA_LAYERS_CPU_NORM_TRAINING_CHUNKS_H
#endif

#include "cpu/simd/vector.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Calls body(channel, vectors, lanes): kVectors whole vectors of channels at a time, then one, then the rest.
template <typename T, int kVectors, typename Body>
ALWAYS_INLINE void for_each_chunk(int64_t channels, const Body& body) {
  int64_t c = 0;
  for (; c + kVectors * kLanes<T> <= channels; c += kVectors * kLanes<T>) body(c, Constant<kVectors>{}, AllLanes{});
  for (; c + kLanes<T> <= channels; c += kLanes<T>) body(c, Constant<1>{}, AllLanes{});
  if (c < channels) body(c, Constant<1>{}, SomeLanes{0, channels - c});
}

template <typename T>
ALWAYS_INLINE int64_t lane_count(AllLanes) {
  return kLanes<T>;
}
template <typename T>
ALWAYS_INLINE int64_t lane_count(SomeLanes lanes) {
  return lanes.end;
}

template <typename T, int kVectors, typename Lanes>
ALWAYS_INLINE void load_chunk(const T* from, Vector<T> (&to)[kVectors], Lanes lanes) {
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) to[v] = load(from + v * kLanes<T>, lanes);
}

// Adds the sums of a run of pixels to those of the band.
template <typename T, int kVectors, typename Lanes>
ALWAYS_INLINE void add_run(const Vector<T> (&run)[kVectors], double* sums, Lanes lanes) {
  alignas(64) Compute<T> numbers[kVectors * kLanes<T>];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) store(numbers + v * kLanes<T>, run[v]);
  const int64_t count = (kVectors - 1) * kLanes<T> + lane_count<T>(lanes);
  for (int64_t i = 0; i < count; ++i) sums[i] += numbers[i];
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_NORM_TRAINING_CHUNKS_H
