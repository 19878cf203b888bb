// Loops over channels and rows, and sums over runs of pixels.
#if defined(SA_LAYERS_CPU_NORM_TRAINING_RUN_SUMS_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_NORM_TRAINING_RUN_SUMS_H
#undef SA_LAYERS_CPU_NORM_TRAINING_RUN_SUMS_H
#else
#define SA_LAYERS_CPU_NORM_TRAINING_RUN_SUMS_H
#endif

#include "cpu/runtime/element.h"
#include "cpu/simd/vector.h"
#include "footprint.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Calls body(channel, lanes) for every vector of channels, and for the rest.
template <typename T, typename Body>
ALWAYS_INLINE void for_each_vector_of(int64_t channels, const Body& body) {
  int64_t c = 0;
  for (; c + kLanes<T> <= channels; c += kLanes<T>) body(c, AllLanes{});
  if (c < channels) body(c, SomeLanes{0, channels - c});
}

// Calls body(first, rows), rows a constant: kBlockRows of the rows begin <= row < end at a time, then one.
template <int kBlockRows, typename Body>
ALWAYS_INLINE void for_each_block(int64_t begin, int64_t end, const Body& body) {
  int64_t row = begin;
  for (; row + kBlockRows <= end; row += kBlockRows) body(row, Constant<kBlockRows>{});
  for (; row < end; ++row) body(row, Constant<1>{});
}

// Two sums for every channel, of the pixels of a run in the dtype of computation: small enough for the first-level
// cache, so that the map is read row by row, as prefetchers like it.
template <typename T>
class RunSums {
 public:
  explicit RunSums(int64_t channels) : width_(round_up(channels, kLanes<T>)), sums_(2 * width_) { clear(); }
  void clear() {
    for (int64_t c = 0; c < 2 * width_; ++c) sums_.data()[c] = 0;
  }

  Compute<T>* first() const { return sums_.data(); }
  Compute<T>* second() const { return sums_.data() + width_; }

  ALWAYS_INLINE void add(int64_t channel, Vector<T> first_term, Vector<T> second_term) const {
    Compute<T>*one = first() + channel, *two = second() + channel;
    store(one, load(one) + first_term);
    store(two, load(two) + second_term);
  }

  // Adds the sums to those of the band, (2, channels), and begins a new run.
  void flush(int64_t channels, double* band) {
    for (int64_t c = 0; c < channels; ++c) band[c] += first()[c];
    for (int64_t c = 0; c < channels; ++c) band[channels + c] += second()[c];
    clear();
  }

 private:
  int64_t width_;
  Scratch<Compute<T>> sums_;
};

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_NORM_TRAINING_RUN_SUMS_H
