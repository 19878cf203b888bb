// The sums of the stem's backward pass over the pixels that its ReLU and its pooling selected.
#if defined(SA_LAYERS_CPU_NORM_TRAINING_STEM_BACKWARD_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_NORM_TRAINING_STEM_BACKWARD_H
#undef SA_LAYERS_CPU_NORM_TRAINING_STEM_BACKWARD_H
#else
#define SA_LAYERS_CPU_NORM_TRAINING_STEM_BACKWARD_H
#endif

#include "cpu/norm_training/channels.h"
#include "cpu/norm_training/stem.h"
#include "cpu/simd/all_small.h"
#include "cpu/simd/vector.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// A part of two rows of the image, in the dtype of computation: the four numbers that each output is computed from, and
// their deviations from the mean.
constexpr int64_t kStemColumns = 64;  // of the output
template <typename C, int kInputs>
struct StemTile {
  C numbers[kInputs][kStemColumns][4];
  C deviations[kInputs][kStemColumns][4];
};

// lookup(four, index)[lane] = four[index[lane]].
template <typename C>
ALWAYS_INLINE Vector<C> lookup(const C* four, typename VectorOf<C>::integers index) {
#if SA_LAYERS_TARGET == SA_LAYERS_AVX512
  constexpr __mmask16 all = 0xffff;  // GCC 12 warns of undefined lanes in the intrinsics without a mask
  const __m512 numbers = _mm512_maskz_broadcast_f32x4(all, _mm_loadu_ps(four));
  return _mm512_maskz_permutevar_ps(all, numbers, bit_cast<__m512i>(index));
#elif SA_LAYERS_TARGET == SA_LAYERS_AVX2
  const __m128 numbers = _mm_loadu_ps(four);
  return _mm256_permutevar_ps(_mm256_set_m128(numbers, numbers), bit_cast<__m256i>(index));
#else
  Vector<C> result = broadcast<C>(four[0]);
  for (int i = 1; i < 4; ++i) result = index == i ? broadcast<C>(four[i]) : result;
  return result;
#endif
}

// Returns whether the numbers are small.
template <int kInputs, typename T>
inline bool read_stem_tile(const StemBackward<T>& problem, int64_t row, int64_t column, int64_t count,
                           StemTile<Compute<T>, kInputs>& tile) {
  const int64_t plane = problem.height * problem.width;
  const T* first = problem.image + row / problem.out_height() * problem.in_channels * plane +
                   row % problem.out_height() * 2 * problem.width + 2 * column;
  Compute<T> row_numbers[2][2 * kStemColumns];
  bool small = true;
  for (int64_t k = 0; k < problem.in_channels; ++k) {
    convert_run(first + k * plane, row_numbers[0], 2 * count);
    convert_run(first + k * plane + problem.width, row_numbers[1], 2 * count);
    Compute<T>*numbers = tile.numbers[k][0], *deviations = tile.deviations[k][0];
    for (int64_t x = 0; x < count; ++x) {
      for (int64_t i = 0; i < 2; ++i)
        __builtin_memcpy(numbers + 4 * x + 2 * i, &row_numbers[i][2 * x], 2 * sizeof(*numbers));
    }
    for (int64_t i = 0; i < 4 * count; ++i) deviations[i] = numbers[i] - problem.center[k];
    small = all_small(numbers, 4 * count) && small;
  }
  return small;
}

// kVectors vectors of channels of `count` outputs of a row. Recomputes what the forward pass did, in the same order, so
// that the same pixels win: the first of equal ones, and of several NaN the last, as in torch. Masks are what the loop
// has least of: few of them fit the processor's buffers, and tests for NaN would take most.
template <bool kMayBeNan, int kInputs, int kVectors, typename T, typename Lanes>
void stem_backward_run(const StemBackward<T>& problem, const StemTile<Compute<T>, kInputs>& tile, int64_t pixel,
                       int64_t count, int64_t channel, double* sums, Lanes lanes) {
  Vector<T> weight[kInputs][kVectors], shift[kVectors], sum[kVectors] = {}, products[kInputs][kVectors] = {};
#pragma GCC unroll 8
  for (int k = 0; k < kInputs; ++k) {
    load_chunk<T>(problem.weight + k * problem.channels + channel, weight[k], lanes);
  }
  load_chunk<T>(problem.shift + channel, shift, lanes);
  const T* grad = problem.grad.at(pixel) + channel;
  for (int64_t x = 0; x < count; ++x, grad += problem.grad.stride) {
    Vector<T> best[kVectors];
    typename VectorOf<Compute<T>>::integers winner[kVectors] = {};
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        Vector<T> next = tile.numbers[0][x][p] * weight[0][v];
#pragma GCC unroll 8
        for (int k = 1; k < kInputs; ++k) next += tile.numbers[k][x][p] * weight[k][v];
        if (p == 0) {
          best[v] = next;
          continue;
        }
        const auto is_greater = kMayBeNan ? next > best[v] || next != next : next > best[v];
        best[v] = kMayBeNan ? (is_greater ? next : best[v]) : maximum(best[v], next);
        winner[v] = is_greater ? typename VectorOf<Compute<T>>::integers{} + p : winner[v];
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      __builtin_prefetch(grad + count * problem.grad.stride + v * kLanes<T>);  // of the next part of the row
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const Vector<T> arriving = load(grad + v * kLanes<T>, lanes);
      const Vector<T> passing = best[v] + shift[v] <= 0 ? Vector<T>{} : arriving;
      sum[v] += passing;
#pragma GCC unroll 8
      for (int k = 0; k < kInputs; ++k) {
        products[k][v] += passing * lookup<Compute<T>>(tile.deviations[k][x], winner[v]);
      }
    }
  }
  const int64_t channels = problem.channels - channel;
  add_run<T>(sum, sums + channel, channels);
#pragma GCC unroll 8
  for (int k = 0; k < kInputs; ++k) add_run<T>(products[k], sums + (1 + k) * problem.channels + channel, channels);
}

template <int kInputs, typename T>
void stem_backward_rows(const StemBackward<T>& problem, int64_t first, int64_t last, double* sums) {
  const int64_t width = problem.out_width(), step = ceil_div(width, ceil_div(width, kStemColumns));
  const bool small_weight = all_small(problem.weight, kInputs * problem.channels);
  StemTile<Compute<T>, kInputs> tile{};  // zeros in the channels that the image lacks
  for (int64_t row = first; row < last; ++row) {
    for (int64_t column = 0; column < width; column += step) {
      const int64_t count = min(step, width - column);
      const bool may_be_nan = !read_stem_tile(problem, row, column, count, tile) || !small_weight;
      for_each_chunk<T, kVectorBytes == 64 ? 2 : 1>(
          problem.channels, [&](int64_t channel, auto vectors, auto lanes) ALWAYS_INLINE_LAMBDA {
            const auto run = may_be_nan ? stem_backward_run<true, kInputs, vectors.value, T, decltype(lanes)>
                                        : stem_backward_run<false, kInputs, vectors.value, T, decltype(lanes)>;
            run(problem, tile, row * width + column, count, channel, sums, lanes);
          });
    }
  }
}

// The output's rows first <= row < last, counted through all images. The sums are (1 + kInputs, channels).
template <typename T>
void stem_backward(const StemBackward<T>& problem, int64_t inputs, int64_t first, int64_t last, double* sums) {
  for (int64_t c = 0; c < (1 + inputs) * problem.channels; ++c) sums[c] = 0;
  if (inputs == 3) stem_backward_rows<3>(problem, first, last, sums);
  if (inputs == 4) stem_backward_rows<4>(problem, first, last, sums);
  if (inputs == 8) stem_backward_rows<8>(problem, first, last, sums);
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_NORM_TRAINING_STEM_BACKWARD_H
