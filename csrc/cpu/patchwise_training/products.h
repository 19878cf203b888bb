// The two products of the passes, whose blocks of the result stay in registers: pixels with a matrix, and sums over
// pixels.
#if defined(SA_LAYERS_CPU_PATCHWISE_TRAINING_PRODUCTS_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PATCHWISE_TRAINING_PRODUCTS_H
#undef SA_LAYERS_CPU_PATCHWISE_TRAINING_PRODUCTS_H
#else
#define SA_LAYERS_CPU_PATCHWISE_TRAINING_PRODUCTS_H
#endif

#include "cpu/linear/matrix_product.h"
#include "cpu/patchwise_training/problem.h"
#include "cpu/simd/vector.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

#if SA_LAYERS_TARGET == SA_LAYERS_AVX512
constexpr int kPixelBlock = 14, kSumRows = 8, kSumVectors = 3, kScatterRows = 7;
#else
constexpr int kPixelBlock = 6, kSumRows = 4, kSumVectors = 2, kScatterRows = 4;
#endif

// A vector that repeats kPeriod numbers; kPeriod divides the lanes or is larger.
template <int kPeriod>
ALWAYS_INLINE Vector<double> repeat(const double* from) {
  if constexpr (kPeriod == 1) return *from - Vector<double>{};
  return load(from);
}

// out[pixel][vector] = initial[pixel][vector] + sum of left[pixel][column] * matrix[vector][column]. With a period, a
// vector of the matrix holds this many of its columns for every output, and so does the result.
template <typename C>
struct PixelProduct {
  const C* left;  // rows of kTileStride
  int64_t depth;
  const C* matrix;
  int64_t vector_stride;
  const C* initial;
  int64_t initial_stride;
  C* out;
  int64_t out_stride;
};

template <int kRows, int kVectors, int kPeriod, typename C>
void multiply_block(const PixelProduct<C>& product, int64_t pixel, int64_t vector) {
  constexpr int64_t lanes = kLanes<C>;
  Vector<C> sums[kRows][kVectors];
  const C* const initial = product.initial + pixel * product.initial_stride + vector * lanes;
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sums[i][v] = load(initial + i * product.initial_stride + v * lanes);
  }
  const C* left = product.left + pixel * kTileStride;
  const C* matrix = product.matrix + vector * product.vector_stride;
  const int64_t vector_stride = product.vector_stride;
  for (int64_t step = 0; step < product.depth; step += kPeriod, left += kPeriod, matrix += lanes) {
    Vector<C> columns[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) columns[v] = load(matrix + v * vector_stride);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const Vector<C> factor = repeat<kPeriod>(left + i * kTileStride);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sums[i][v] += factor * columns[v];
    }
  }
  C* const out = product.out + pixel * product.out_stride + vector * lanes;
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) store(out + i * product.out_stride + v * lanes, sums[i][v]);
  }
}

template <int kVectors, int kPeriod, typename C>
void multiply_pixels(const PixelProduct<C>& product, int64_t pixels, int64_t vector) {
  int64_t pixel = 0;
  for (; pixel + kPixelBlock <= pixels; pixel += kPixelBlock) {
    multiply_block<kPixelBlock, kVectors, kPeriod>(product, pixel, vector);
  }
  if constexpr (kPixelBlock > 7) {
    if (pixel + 7 <= pixels) multiply_block<7, kVectors, kPeriod>(product, pixel, vector), pixel += 7;
  }
  if (pixel + 4 <= pixels) multiply_block<4, kVectors, kPeriod>(product, pixel, vector), pixel += 4;
  if (pixel + 2 <= pixels) multiply_block<2, kVectors, kPeriod>(product, pixel, vector), pixel += 2;
  if (pixel < pixels) multiply_block<1, kVectors, kPeriod>(product, pixel, vector);
}

template <typename C>
void multiply(const PixelProduct<C>& product, int64_t pixels, int64_t vectors) {
  int64_t vector = 0;
  for (; vector + 2 <= vectors; vector += 2) multiply_pixels<2, 1>(product, pixels, vector);
  if (vector < vectors) multiply_pixels<1, 1>(product, pixels, vector);
}

// A product with the matrix of few outputs.
template <int kPeriod = 1, typename C>
void multiply_by_outputs(const PixelProduct<C>& product, int64_t pixels, const Outputs& outputs) {
  if constexpr (kPeriod < kLanes<C>) {
    if (outputs.period > kPeriod) return multiply_by_outputs<2 * kPeriod>(product, pixels, outputs);
  }
  if constexpr (kPeriod == 1) {
    multiply(product, pixels, outputs.vectors());
  } else {
    multiply_pixels<1, kPeriod>(product, pixels, 0);
  }
}

// The sums of the lanes of an output, which multiply_by_outputs left apart.
template <typename C>
void add_lanes(const C* from, const Outputs& outputs, C* to) {
  for (int64_t n = 0; n < outputs.count; ++n) {
    C sum = from[n * outputs.period];
    for (int64_t i = 1; i < outputs.period; ++i) sum += from[n * outputs.period + i];
    to[n] = sum;
  }
}

// sums[vector][row] += sum over pixels of left[pixel][row] * right[pixel][vector]; totals[vector] += sum over pixels of
// right[pixel][vector].
template <typename C>
struct SumOfPixels {
  const C *left, *right;  // rows of kTileStride
  int64_t pixels;
  C* sums;
  int64_t vector_stride;
  C* totals;  // or null
};

template <int kRows, int kVectors, bool kTotals, typename C>
void sum_block(const SumOfPixels<C>& product, int64_t row, int64_t vector) {
  constexpr int64_t lanes = kLanes<C>;
  Vector<C> sums[kVectors][kRows] = {}, totals[kVectors] = {};
  const C *left = product.left + row, *right = product.right + vector * lanes;
  for (int64_t pixel = 0; pixel < product.pixels; ++pixel, left += kTileStride, right += kTileStride) {
    Vector<C> columns[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) columns[v] = load(right + v * lanes);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const Vector<C> factor = repeat<1>(left + i);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[v][i] += factor * columns[v];
    }
    if constexpr (kTotals) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) totals[v] += columns[v];
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    C* const to = product.sums + (vector + v) * product.vector_stride + row * lanes;
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) store(to + i * lanes, load(to + i * lanes) + sums[v][i]);
    if constexpr (kTotals) {
      C* const total = product.totals + (vector + v) * lanes;
      store(total, load(total) + totals[v]);
    }
  }
}

template <int kRows, typename C>
void sum_rows(const SumOfPixels<C>& product, int64_t row, int64_t vectors) {
  const bool totals = product.totals != nullptr && row == 0;
  for (int64_t vector = 0; vector < vectors;) {
    const int64_t rest = vectors - vector, count = rest >= kSumVectors && rest != 4 ? kSumVectors : min(rest, 2);
    const auto sum = [&](auto size) ALWAYS_INLINE_LAMBDA {
      if (totals) {
        sum_block<kRows, decltype(size)::value, true>(product, row, vector);
      } else {
        sum_block<kRows, decltype(size)::value, false>(product, row, vector);
      }
    };
    if (count == 1) {
      sum(Constant<1>{});
    } else if (count == 2) {
      sum(Constant<2>{});
    } else {
      sum(Constant<kSumVectors>{});
    }
    vector += count;
  }
}

template <typename C>
void sum_of_pixels(const SumOfPixels<C>& product, int64_t rows, int64_t vectors) {
  int64_t row = 0;
  for (; row + kSumRows <= rows; row += kSumRows) sum_rows<kSumRows>(product, row, vectors);
  if constexpr (kSumRows > 4) {
    if (row + 4 <= rows) sum_rows<4>(product, row, vectors), row += 4;
  }
  if (row + 2 <= rows) sum_rows<2>(product, row, vectors), row += 2;
  if (row < rows) sum_rows<1>(product, row, vectors);
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PATCHWISE_TRAINING_PRODUCTS_H
