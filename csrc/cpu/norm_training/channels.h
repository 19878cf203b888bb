// Loops over the channels of a map, and sums over runs of pixels.
#if defined(SA_LAYERS_CPU_NORM_TRAINING_CHANNELS_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_NORM_TRAINING_CHANNELS_H
#undef SA_LAYERS_CPU_NORM_TRAINING_CHANNELS_H
#else
#define SA_LAYERS_CPU_NORM_TRAINING_CHANNELS_H
#endif

#include "cpu/norm_training/problem.h"
#include "cpu/simd/vector.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Calls body(channel, lanes) for every vector of channels, and for the rest.
template <typename T, typename Body>
ALWAYS_INLINE void for_each_vector_of(int64_t channels, const Body& body) {
  int64_t c = 0;
  for (; c + kLanes<T> <= channels; c += kLanes<T>) body(c, AllLanes{});
  if (c < channels) body(c, SomeLanes{0, channels - c});
}

// Calls body(channel, vectors, lanes) for chunks of channels: kVectors whole vectors, then one, then the rest.
template <typename T, int kVectors, typename Body>
ALWAYS_INLINE void for_each_chunk(int64_t channels, const Body& body) {
  int64_t c = 0;
  for (; c + kVectors * kLanes<T> <= channels; c += kVectors * kLanes<T>) body(c, Constant<kVectors>{}, AllLanes{});
  for (; c + kLanes<T> <= channels; c += kLanes<T>) body(c, Constant<1>{}, AllLanes{});
  if (c < channels) body(c, Constant<1>{}, SomeLanes{0, channels - c});
}

template <typename T, int kVectors, typename Lanes>
ALWAYS_INLINE void load_chunk(const Compute<T>* from, Vector<T> (&to)[kVectors], Lanes lanes) {
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) to[v] = load(from + v * kLanes<T>, lanes);
}

template <typename T, int kVectors>
ALWAYS_INLINE void store_chunk(const Vector<T> (&from)[kVectors], Compute<T>* to) {
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) store(to + v * kLanes<T>, from[v]);
}

// Adds a chunk's sums over a run of pixels to those of the band; `channels` are left from the first of the chunk.
template <typename T, int kVectors>
ALWAYS_INLINE void add_run(const Vector<T> (&run)[kVectors], double* sums, int64_t channels) {
  alignas(64) Compute<T> numbers[kVectors * kLanes<T>];
  store_chunk<T>(run, numbers);
  for (int64_t i = 0; i < min(channels, kVectors * kLanes<T>); ++i) sums[i] += numbers[i];
}

// While the chunks of a run are read one after the other, prefetches the next run into the second-level cache in the
// order of memory, which is what memory is fastest at. Rows of one chunk are read in this order anyway.
template <int kVectors, typename T>
class NextRun {
 public:
  NextRun(const Map<T>& map, int64_t channels, int64_t channel, int64_t first, int64_t count)
      : chunks_(channels * sizeof(T) > 256 && kVectors > 1 ? channels / kNumbers : 0) {
    if (chunks_ == 0) return;
    const int64_t done = channel / kNumbers * count;  // by the chunks before
    left_ = chunks_ - done % chunks_;
    at_ = map.at(first + count + done / chunks_) + done % chunks_ * kNumbers;
    gap_ = map.stride - chunks_ * kNumbers;
  }

  // Once for each row of a chunk.
  ALWAYS_INLINE void prefetch() {
    if (chunks_ == 0) return;
#pragma GCC unroll 8
    for (int64_t i = 0; i < kNumbers; i += kLine) __builtin_prefetch(at_ + i, 0, 2);
    at_ += kNumbers;
    if (--left_ == 0) left_ = chunks_, at_ += gap_;
  }

 private:
  static constexpr int64_t kNumbers = kVectors * kLanes<T>, kLine = 64 / sizeof(T);
  int64_t chunks_, left_ = 0, gap_ = 0;
  T* at_ = nullptr;
};

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_NORM_TRAINING_CHANNELS_H
