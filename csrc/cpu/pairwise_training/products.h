// Matrix products of pairs: their rows times a matrix, and sums over rows of products of two columns.
#if defined(SA_LAYERS_CPU_PAIRWISE_TRAINING_PRODUCTS_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PAIRWISE_TRAINING_PRODUCTS_H
#undef SA_LAYERS_CPU_PAIRWISE_TRAINING_PRODUCTS_H
#else
#define SA_LAYERS_CPU_PAIRWISE_TRAINING_PRODUCTS_H
#endif

#include "cpu/simd/vector.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// A size that is a constant of a specialised kernel, or known at run time.
template <int64_t kValue>
struct FixedSize {
  static constexpr bool kFixed = true;
  constexpr operator int64_t() const { return kValue; }
};
struct AnySize {
  static constexpr bool kFixed = false;
  int64_t value;
  operator int64_t() const { return value; }
};

// Accumulators fill the registers: kPairBlock rows of kPairVectors vectors, or twice the rows of fewer vectors.
#if SA_LAYERS_TARGET == SA_LAYERS_AVX512
constexpr int kPairBlock = 7, kPairVectors = 4, kSumRows = 16;
#else
constexpr int kPairBlock = 6, kPairVectors = 2, kSumRows = 8;
#endif

template <int kRows, int kVectors, typename C, typename RowSize, typename Width, typename Start, typename Finish>
ALWAYS_INLINE void multiply_pair_block(const C* rows, RowSize row_size, int64_t first, int64_t depth, const C* matrix,
                                       Width width, int64_t column, const Start& start, const Finish& finish) {
  Vector<C> sums[kRows][kVectors];
#pragma GCC unroll 14
  for (int r = 0; r < kRows; ++r) {
    const C* const from = start(first + r);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sums[r][v] = from == nullptr ? Vector<C>{} : load(from + column + v * kLanes<C>);
  }
  // A pointer for each group of rows, where distances from one pointer are not constant.
  constexpr int kGroup = RowSize::kFixed ? kRows : 5;
  const C* groups[(kRows + kGroup - 1) / kGroup];
#pragma GCC unroll 3
  for (int g = 0; g * kGroup < kRows; ++g) {
    groups[g] = rows + (first + g * kGroup) * row_size;
    asm("" : "+r"(groups[g]));
  }
  const C* weights_at = matrix + column;
  for (int64_t i = 0; i < depth; ++i, weights_at += width) {
    Vector<C> weights[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) weights[v] = load(weights_at + v * kLanes<C>);
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
      const C feature = groups[r / kGroup][r % kGroup * row_size + i];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[r][v] += feature * weights[v];
    }
  }
#pragma GCC unroll 14
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) finish(first + r, column + v * kLanes<C>, sums[r][v]);
  }
}

// rows * matrix, where start(row) is what the row's sums begin with (null: zeros), and finish(row, column, vector)
// takes the result. The number of rows is rounded up to a multiple of kPairBlock.
template <typename C, typename RowSize, typename Width, typename Start, typename Finish>
ALWAYS_INLINE void multiply_pairs(const C* rows, RowSize row_size, int64_t count, int64_t depth, const C* matrix,
                                  Width width, const Start& start, const Finish& finish) {
  const auto columns = [&](auto vectors, int64_t column) ALWAYS_INLINE_LAMBDA {
    int64_t r = 0;
    if constexpr (2 * vectors.value <= kPairVectors) {
      for (; r + kPairBlock < count; r += 2 * kPairBlock) {
        multiply_pair_block<2 * kPairBlock, vectors.value>(rows, row_size, r, depth, matrix, width, column, start,
                                                           finish);
      }
    }
    for (; r < count; r += kPairBlock) {
      multiply_pair_block<kPairBlock, vectors.value>(rows, row_size, r, depth, matrix, width, column, start, finish);
    }
  };
  int64_t column = 0;
  if constexpr (kPairVectors >= 4) {
    for (; column + 4 * kLanes<C> <= width; column += 4 * kLanes<C>) columns(Constant<4>{}, column);
  }
  for (; column + 2 * kLanes<C> <= width; column += 2 * kLanes<C>) columns(Constant<2>{}, column);
  if (column < width) columns(Constant<1>{}, column);
}

template <int kLeft, int kVectors, typename C, typename LeftSize, typename RightSize, typename Width>
ALWAYS_INLINE void sum_block(int64_t count, const C* left, LeftSize left_size, const C* right, RightSize right_size,
                             C* sums, Width width) {
  Vector<C> total[kLeft][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kLeft; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) total[i][v] = load(sums + i * width + v * kLanes<C>);
  }
  for (int64_t r = 0; r < count; ++r) {
    Vector<C> factor[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) factor[v] = load(right + r * right_size + v * kLanes<C>);
#pragma GCC unroll 16
    for (int i = 0; i < kLeft; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) total[i][v] += left[r * left_size + i] * factor[v];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kLeft; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) store(sums + i * width + v * kLanes<C>, total[i][v]);
  }
}

// sums[i][j] += sum over rows of left[row][i] * right[row][j] for i < left_count and one or two vectors of j.
template <int kVectors, typename C, typename LeftSize, typename RightSize, typename Width>
ALWAYS_INLINE void sum_products_of_columns(int64_t count, const C* left, LeftSize left_size, int64_t left_count,
                                           const C* right, RightSize right_size, C* sums, Width width) {
  int64_t i = 0;
  const auto block = [&](auto rows) ALWAYS_INLINE_LAMBDA {
    for (; i + rows.value <= left_count; i += rows.value) {
      sum_block<rows.value, kVectors>(count, left + i, left_size, right, right_size, sums + i * width, width);
    }
  };
  block(Constant<kSumRows / kVectors>{});
  if constexpr (kSumRows / kVectors > 8) block(Constant<8>{});
  if constexpr (kSumRows / kVectors > 4) block(Constant<4>{});
  block(Constant<2>{}), block(Constant<1>{});
}

// sums[i][j] += sum over rows of left[row][i] * right[row][j] for i < left_count and j < right_size.
template <typename C, typename LeftSize, typename RightSize>
ALWAYS_INLINE void sum_products(int64_t count, const C* left, LeftSize left_size, int64_t left_count, const C* right,
                                RightSize right_size, C* sums) {
  int64_t j = 0;
  for (; j + 2 * kLanes<C> <= right_size; j += 2 * kLanes<C>) {
    sum_products_of_columns<2>(count, left, left_size, left_count, right + j, right_size, sums + j, right_size);
  }
  if (j < right_size) {
    sum_products_of_columns<1>(count, left, left_size, left_count, right + j, right_size, sums + j, right_size);
  }
}

// The same for a symmetric result, of which at least the elements with i <= j are computed.
template <typename C, typename Size>
ALWAYS_INLINE void sum_symmetric_products(int64_t count, const C* left, const C* right, Size size, int64_t columns,
                                          C* sums) {
  for (int64_t i = 0; i < columns; i += kLanes<C>) {
    const int64_t left_count = min(kLanes<C>, columns - i);
    int64_t j = i;
    for (; j + 2 * kLanes<C> <= size; j += 2 * kLanes<C>) {
      sum_products_of_columns<2>(count, left + i, size, left_count, right + j, size, sums + i * size + j, size);
    }
    if (j < size) {
      sum_products_of_columns<1>(count, left + i, size, left_count, right + j, size, sums + i * size + j, size);
    }
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PAIRWISE_TRAINING_PRODUCTS_H
