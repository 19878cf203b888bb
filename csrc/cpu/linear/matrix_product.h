// Matrix products, sums = initial + rows * matrix, whose blocks of the result stay in registers.
#if defined(SA_LAYERS_CPU_LINEAR_MATRIX_PRODUCT_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_LINEAR_MATRIX_PRODUCT_H
#undef SA_LAYERS_CPU_LINEAR_MATRIX_PRODUCT_H
#else
#define SA_LAYERS_CPU_LINEAR_MATRIX_PRODUCT_H
#endif

#include "cpu/linear/problem.h"
#include "cpu/simd/vector.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// A vector that repeats kPeriod numbers.
template <int kPeriod>
ALWAYS_INLINE Vector<float> repeat(const float* from) {
  if constexpr (kPeriod >= kLanes<float>) return load(from);
  // Subtracting zero changes no number, not even the sign of a zero; the compiler turns it into a broadcast.
  if constexpr (kPeriod == 1) return *from - Vector<float>{};
#if SA_LAYERS_TARGET != SA_LAYERS_BASELINE
  if constexpr (kPeriod == 2) {
    double both;
    __builtin_memcpy(&both, from, sizeof(both));
    return bit_cast<Vector<float>>(both - Vector<double>{});
  }
  if constexpr (kPeriod == 4) {
    const __m128 four = _mm_loadu_ps(from);
#if SA_LAYERS_TARGET == SA_LAYERS_AVX512
    return _mm512_maskz_broadcast_f32x4(0xffff, four);
#else
    return _mm256_set_m128(four, four);
#endif
  }
#endif
#if SA_LAYERS_TARGET == SA_LAYERS_AVX512
  if constexpr (kPeriod == 8) return _mm512_maskz_broadcast_f32x8(0xffff, _mm256_loadu_ps(from));
#else
  Vector<float> to = {};
  for (int i = 0; i < kLanes<float>; ++i) to[i] = from[i % kPeriod];
  return to;
#endif
}

// The row stride of the left factor: a constant, so that rows need no registers for their addresses; and no power of
// two, so that rows do not compete for one set of the cache.
constexpr int64_t kDepth = 256, kRowStride = kDepth + 16;
// The block that fills the registers: rows times groups of columns.
#if SA_LAYERS_TARGET == SA_LAYERS_AVX512
constexpr int kBlockRows = 14, kBlockGroups = 2;
#else
constexpr int kBlockRows = SA_LAYERS_TARGET == SA_LAYERS_AVX2 ? 6 : 3, kBlockGroups = 1;
#endif

// The rows that a packed block has space for, so that no vector of it straddles two cache lines.
constexpr int kSpaceRows = ceil_div(kBlockRows, kLanes<float> / 4) * (kLanes<float> / 4);

struct Product {
  const float* rows;
  int64_t count, depth;
  const float* matrix;
  int64_t matrix_stride, group_stride;  // between rows, and between groups of columns
  const float* initial;
  int64_t initial_stride;
  float* sums;
  int64_t sums_stride;
  const float* bias = nullptr;  // of all columns, for BiasedRows
};

// Layouts of the two factors in memory. kSteps is how many steps of the depth the loop is unrolled by: the more, the
// fewer instructions besides the products, as long as the loop fits the instruction cache.
struct RowMajor {
  static constexpr int kSteps = 2;
  static constexpr bool kAddsBias = false;
  static constexpr int64_t left(int64_t row, int64_t column) { return row * kRowStride + column; }
  static int64_t matrix_stride(const Product& product) { return product.matrix_stride; }
};
// Packed for short addresses, and so for short instructions: the left factor holds four columns of all rows of a block
// in turn; the matrix holds its groups of columns one after the other.
struct InterleavedRows {
  static constexpr int kSteps = 4;
  static constexpr bool kAddsBias = false;
  static constexpr int64_t kBlock = kSpaceRows * kDepth;
  static constexpr int64_t left(int64_t row, int64_t column) {
    return column / 4 * 4 * kSpaceRows + row * 4 + column % 4;
  }
  static constexpr int64_t matrix_stride(const Product&) { return kGroupColumns; }
};
// The same, with a bias that is added to the initial sums.
struct BiasedRows : InterleavedRows {
  static constexpr bool kAddsBias = true;
};
// The left factor holds each column of all rows of a block in turn, as a transposed matrix has them, in a vector.
// Blocks are one vector longer than a power of two, so that their vectors do not compete for one set of the cache.
struct TransposedRows {
  static constexpr int kSteps = 4;
  static constexpr bool kAddsBias = false;
  static constexpr int64_t kBlock = kLanes<float> * (kDepth + 1);
  static constexpr int64_t left(int64_t row, int64_t column) { return column * kLanes<float> + row; }
  static constexpr int64_t matrix_stride(const Product&) { return kGroupColumns; }
};

// With kPeriod 2, a row of the matrix holds two of its rows interleaved in one group of columns, so that few columns
// fill a vector.
template <typename Layout, int kRows, int kGroups, int kPeriod>
void multiply_block(const Product& product, int64_t group) {
  constexpr int kGroupVectors = kGroupColumns / kLanes<float>, kVectors = kGroups * kGroupVectors;
  const int64_t column = group * kGroupColumns;
  Vector<float> sums[kRows][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      sums[i][v] = load(product.initial + i * product.initial_stride + column + v * kLanes<float>);
      if constexpr (Layout::kAddsBias) sums[i][v] += load(product.bias + column + v * kLanes<float>);
    }
  }
  const float *row = product.rows, *matrix = product.matrix + group * product.group_stride;
  const int64_t matrix_stride = Layout::matrix_stride(product), group_stride = product.group_stride;
  const auto add = [&](int64_t step) ALWAYS_INLINE_LAMBDA {
    Vector<float> columns[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      columns[v] =
          load(matrix + step * matrix_stride + v / kGroupVectors * group_stride + v % kGroupVectors * kLanes<float>);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const Vector<float> factor = repeat<kPeriod>(row + Layout::left(i, step * kPeriod));
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[i][v] += factor * columns[v];
    }
  };
  int64_t steps = ceil_div(product.depth, kPeriod);
  for (; steps >= Layout::kSteps; steps -= Layout::kSteps) {
#pragma GCC unroll 4
    for (int step = 0; step < Layout::kSteps; ++step) add(step);
    row += Layout::left(0, Layout::kSteps * kPeriod), matrix += Layout::kSteps * matrix_stride;
  }
  for (; steps > 0; --steps, row += Layout::left(0, kPeriod), matrix += matrix_stride) add(0);
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
      store(product.sums + i * product.sums_stride + column + v * kLanes<float>, sums[i][v]);
  }
}

template <typename Layout, int kRows, int kGroups, int kPeriod>
inline void multiply_rows(const Product& product, int64_t group) {
  if constexpr (kRows > 1) {
    if (product.count < kRows) return multiply_rows<Layout, kRows - 1, kGroups, kPeriod>(product, group);
  }
  multiply_block<Layout, kRows, kGroups, kPeriod>(product, group);
}

// A product of at most kBlockRows rows with some groups of columns.
template <typename Layout, int kPeriod>
void multiply(const Product& product, int64_t groups) {
  int64_t group = 0;
  if constexpr (kPeriod == 1) {
    for (; group + kBlockGroups <= groups; group += kBlockGroups) {
      multiply_rows<Layout, kBlockRows, kBlockGroups, kPeriod>(product, group);
    }
  }
  if constexpr (kBlockGroups > 1 || kPeriod > 1) {
    for (; group < groups; ++group) multiply_rows<Layout, kBlockRows, 1, kPeriod>(product, group);
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_LINEAR_MATRIX_PRODUCT_H
