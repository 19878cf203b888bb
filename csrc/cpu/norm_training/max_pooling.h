// 2x2 max-pooling after a norm and a ReLU, and which pixels it selects.
#if defined(SA_LAYERS_CPU_NORM_TRAINING_MAX_POOLING_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_NORM_TRAINING_MAX_POOLING_H
#undef SA_LAYERS_CPU_NORM_TRAINING_MAX_POOLING_H
#else
#define SA_LAYERS_CPU_NORM_TRAINING_MAX_POOLING_H
#endif

#include "cpu/norm_training/channels.h"
#include "cpu/norm_training/problem.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// One vector of channels of 2x2 pixels: which of the four is the first maximum. Of several NaN the last wins, as in
// torch.
template <typename T>
struct Winner {
  using Integers = typename VectorOf<Compute<T>>::integers;
  Vector<T> maximum;
  Integers index;
};

// The four pixels' vectors, and their winner after the norm.
template <bool kHasNorm, typename T>
ALWAYS_INLINE Winner<T> find_winner(const Vector<T> (&pixels)[4], Vector<T> scale, Vector<T> shift) {
  Winner<T> winner{kHasNorm ? scale * pixels[0] + shift : pixels[0], {}};
#pragma GCC unroll 4
  for (int i = 1; i < 4; ++i) {
    const Vector<T> next = kHasNorm ? scale * pixels[i] + shift : pixels[i];
    const auto is_greater = next > winner.maximum || next != next;
    winner.maximum = is_greater ? next : winner.maximum;
    winner.index = is_greater ? typename Winner<T>::Integers{} + i : winner.index;
  }
  return winner;
}

// Where the 2x2 pixels of an output are, from the first.
struct Corners {
  int64_t offsets[4];

  Corners(int64_t stride, int64_t width) : offsets{0, stride, width * stride, (width + 1) * stride} {}
};

// Prefetches the pixels of the output after the next: four streams are more than hardware prefetchers follow well.
template <typename T, typename Lanes>
ALWAYS_INLINE void load_corners(const T* first, const Corners& corners, Vector<T> (&pixels)[4], Lanes lanes) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    __builtin_prefetch(first + corners.offsets[i] + 4 * corners.offsets[1], 0, 2);
    pixels[i] = load(first + corners.offsets[i], lanes);
  }
}

template <bool kHasNorm, typename T>
ALWAYS_INLINE void max_pooling_rows(const Pooling<T>& problem, T* pooled, int64_t first, int64_t last) {
  const Corners corners(problem.pixels.stride, problem.width);
  T* to = pooled + first * problem.out_width() * problem.channels;
  for (int64_t row = first; row < last; ++row) {
    const T* from = problem.pixels.at(problem.first_pixel(row));
    for (int64_t x = 0; x < problem.out_width(); ++x, from += 2 * problem.pixels.stride, to += problem.channels) {
      for_each_vector_of<T>(problem.channels, [&](int64_t c, auto lanes) ALWAYS_INLINE_LAMBDA {
        const Vector<T> scale = kHasNorm ? load(problem.scale + c, lanes) : Vector<T>{};
        const Vector<T> shift = kHasNorm ? load(problem.shift + c, lanes) : Vector<T>{};
        Vector<T> pixels[4];
        load_corners(from + c, corners, pixels, lanes);
        const Vector<T> maximum = find_winner<kHasNorm, T>(pixels, scale, shift).maximum;
        store(to + c, kHasNorm ? relu(maximum) : maximum, lanes);
      });
    }
  }
}

// The rows first <= row < last of the output, counted through all images.
template <typename T>
void max_pooling(const Pooling<T>& problem, T* pooled, int64_t first, int64_t last) {
  if (problem.scale != nullptr) return max_pooling_rows<true>(problem, pooled, first, last);
  max_pooling_rows<false>(problem, pooled, first, last);
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_NORM_TRAINING_MAX_POOLING_H
