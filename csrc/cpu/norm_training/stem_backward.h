// The sums of the stem's backward pass over the pixels that its ReLU and its pooling selected.
#if defined(SA_LAYERS_CPU_NORM_TRAINING_STEM_BACKWARD_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_NORM_TRAINING_STEM_BACKWARD_H
#undef SA_LAYERS_CPU_NORM_TRAINING_STEM_BACKWARD_H
#else
#define SA_LAYERS_CPU_NORM_TRAINING_STEM_BACKWARD_H
#endif

#include "cpu/norm_training/stem.h"
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

template <typename T, int kVectors, typename Lanes>
ALWAYS_INLINE void load_chunk(const Compute<T>* from, Vector<T> (&to)[kVectors], Lanes lanes) {
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) to[v] = load(from + v * kLanes<T>, lanes);
}

// Adds the sums of a run of pixels to those of the band.
template <typename T, int kVectors>
ALWAYS_INLINE void add_run(const Vector<T> (&run)[kVectors], double* sums, int64_t channels) {
  alignas(64) Compute<T> numbers[kVectors * kLanes<T>];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) store(numbers + v * kLanes<T>, run[v]);
  for (int64_t i = 0; i < min(channels, kVectors * kLanes<T>); ++i) sums[i] += numbers[i];
}

// A part of two rows of the image, in the dtype of computation: the numbers that the forward pass read, and their
// deviations from the mean.
constexpr int64_t kStemColumns = 64;  // of the output
template <typename C, int kInputs>
struct StemTile {
  C numbers[kInputs][2][2 * kStemColumns];
  C deviations[kInputs][2][2 * kStemColumns];
};

template <int kInputs, typename T>
inline void read_stem_tile(const StemBackward<T>& problem, int64_t row, int64_t column, int64_t count,
                           StemTile<Compute<T>, kInputs>& tile) {
  const int64_t plane = problem.height * problem.width;
  const T* first = problem.image + row / problem.out_height() * problem.in_channels * plane +
                   row % problem.out_height() * 2 * problem.width + 2 * column;
  for (int64_t k = 0; k < problem.in_channels; ++k) {
    for (int64_t i = 0; i < 2; ++i) {
      Compute<T>*numbers = tile.numbers[k][i], *deviations = tile.deviations[k][i];
      convert_run(first + k * plane + i * problem.width, numbers, 2 * count);
      for (int64_t x = 0; x < 2 * count; ++x) deviations[x] = numbers[x] - problem.center[k];
    }
  }
}

// kVectors vectors of channels of `count` outputs of a row. Recomputes what the forward pass did, in the same order, so
// that the same pixels win.
template <int kInputs, int kVectors, typename T, typename Lanes>
ALWAYS_INLINE void stem_backward_run(const StemBackward<T>& problem, const StemTile<Compute<T>, kInputs>& tile,
                                     int64_t pixel, int64_t count, int64_t channel, double* sums, Lanes lanes) {
  Vector<T> weight[kInputs][kVectors], shift[kVectors], sum[kVectors] = {}, products[kInputs][kVectors] = {};
#pragma GCC unroll 8
  for (int k = 0; k < kInputs; ++k) {
    load_chunk<T>(problem.weight + k * problem.channels + channel, weight[k], lanes);
  }
  load_chunk<T>(problem.shift + channel, shift, lanes);
  for (int64_t x = 0; x < count; ++x) {
    Vector<T> maximum[kVectors], selected[kInputs][kVectors];
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) {
      Vector<T> next[kVectors] = {};
#pragma GCC unroll 8
      for (int k = 0; k < kInputs; ++k) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) next[v] += tile.numbers[k][p / 2][2 * x + p % 2] * weight[k][v];
      }
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        if (p == 0) maximum[v] = next[v];
        const auto is_greater = next[v] > maximum[v] || next[v] != next[v];
        maximum[v] = is_greater ? next[v] : maximum[v];
#pragma GCC unroll 8
        for (int k = 0; k < kInputs; ++k) {
          const Vector<T> deviation = broadcast<T>(tile.deviations[k][p / 2][2 * x + p % 2]);
          selected[k][v] = p == 0 ? deviation : (is_greater ? deviation : selected[k][v]);
        }
      }
    }
    const T* grad = problem.grad.at(pixel + x) + channel;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const Vector<T> arriving = load(grad + v * kLanes<T>, lanes);
      const Vector<T> passing = maximum[v] + shift[v] <= 0 ? Vector<T>{} : arriving;
      sum[v] += passing;
#pragma GCC unroll 8
      for (int k = 0; k < kInputs; ++k) products[k][v] += passing * selected[k][v];
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
  StemTile<Compute<T>, kInputs> tile{};  // zeros in the channels that the image lacks
  for (int64_t row = first; row < last; ++row) {
    for (int64_t column = 0; column < width; column += step) {
      const int64_t count = min(step, width - column);
      read_stem_tile(problem, row, column, count, tile);
      for_each_chunk<T, kVectorBytes == 64 ? 2 : 1>(
          problem.channels, [&](int64_t channel, auto vectors, auto lanes) ALWAYS_INLINE_LAMBDA {
            stem_backward_run<kInputs, vectors.value>(problem, tile, row * width + column, count, channel, sums, lanes);
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
