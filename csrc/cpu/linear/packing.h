// Packs the left factor of a product, rows of pixels, into InterleavedRows.
#if defined(SA_LAYERS_CPU_LINEAR_PACKING_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_LINEAR_PACKING_H
#undef SA_LAYERS_CPU_LINEAR_PACKING_H
#else
#define SA_LAYERS_CPU_LINEAR_PACKING_H
#endif

#include "cpu/linear/matrix_product.h"
#include "cpu/linear/problem.h"
#include "cpu/simd/transpose.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Calls read(channel, lanes) for the vectors of some channels.
template <typename Read>
ALWAYS_INLINE void for_each_vector(int64_t channels, const Read& read) {
  int64_t c = 0;
  for (; c + kLanes<float> <= channels; c += kLanes<float>) read(c, AllLanes{});
  if (c < channels) read(c, SomeLanes{0, channels - c});
}

// Stores a vector of a row; the column is a multiple of its lanes.
ALWAYS_INLINE void store_interleaved(float* row, int64_t column, Vector<float> from) {
#if SA_LAYERS_TARGET != SA_LAYERS_BASELINE
  store_every_fourth(from, kLanes<float>, row + InterleavedRows::left(0, column), kSpaceRows);
#else
  store(row + InterleavedRows::left(0, column), from);
#endif
}

// Calls read(i, row) for the rows of the left factor.
template <typename Read>
ALWAYS_INLINE void for_each_row(float* rows, int64_t count, const Read& read) {
  for (int64_t first = 0; first < count; first += kBlockRows, rows += InterleavedRows::kBlock) {
    const int64_t last = min(first + kBlockRows, count);
    for (int64_t i = first; i < last; ++i) read(i, rows + InterleavedRows::left(i - first, 0));
  }
}

// The rows of which four columns each fill a vector.
constexpr int kQuarterRows = kLanes<float> / 4;

// Stores the same columns of kQuarterRows rows, with as many stores.
ALWAYS_INLINE void store_interleaved(float* row, int64_t column, const Vector<float> (&from)[kQuarterRows]) {
  float* const to = row + InterleavedRows::left(0, column);
#if SA_LAYERS_TARGET == SA_LAYERS_AVX512
  constexpr __mmask16 all = 0xffff;  // GCC 12 warns of undefined lanes in the intrinsics without a mask
  const __m512 low01 = _mm512_maskz_shuffle_f32x4(all, from[0], from[1], 0x44);
  const __m512 low23 = _mm512_maskz_shuffle_f32x4(all, from[2], from[3], 0x44);
  const __m512 high01 = _mm512_maskz_shuffle_f32x4(all, from[0], from[1], 0xee);
  const __m512 high23 = _mm512_maskz_shuffle_f32x4(all, from[2], from[3], 0xee);
  store(to, Vector<float>(_mm512_maskz_shuffle_f32x4(all, low01, low23, 0x88)));
  store(to + 4 * kSpaceRows, Vector<float>(_mm512_maskz_shuffle_f32x4(all, low01, low23, 0xdd)));
  store(to + 8 * kSpaceRows, Vector<float>(_mm512_maskz_shuffle_f32x4(all, high01, high23, 0x88)));
  store(to + 12 * kSpaceRows, Vector<float>(_mm512_maskz_shuffle_f32x4(all, high01, high23, 0xdd)));
#elif SA_LAYERS_TARGET == SA_LAYERS_AVX2
  store(to, Vector<float>(_mm256_permute2f128_ps(from[0], from[1], 0x20)));
  store(to + 4 * kSpaceRows, Vector<float>(_mm256_permute2f128_ps(from[0], from[1], 0x31)));
#else
  store(to, from[0]);
#endif
}

// Packs some channels of some pixels, after the norm and the ReLU.
inline void pack_activations(const Activations& activations, int64_t pixel, int64_t count, int64_t channel,
                             int64_t depth, float* rows) {
  const bool normalises = activations.scale != nullptr;
  const int64_t stride = activations.stride;
  const float* scale = normalises ? activations.scale + channel : nullptr;
  const float* shift = normalises ? activations.shift + channel : nullptr;
  const auto read = [&](const float* from, int64_t c, auto lanes) ALWAYS_INLINE_LAMBDA {
    __builtin_prefetch(from + kBlockRows * stride + c);  // of the next block, early enough
    const Vector<float> features = load(from + c, lanes);
    return normalises ? relu(load(scale + c, lanes) * features + load(shift + c, lanes)) : features;
  };
  for (int64_t first = 0; first < count; first += kBlockRows, rows += InterleavedRows::kBlock) {
    const float* from = activations.pixels + (pixel + first) * stride + channel;
    const int64_t block = min(kBlockRows, count - first);
    // Narrow maps are bound by memory, which is read faster row by row.
    const int64_t quarters = depth <= 4 * kPanelColumns ? 0 : block / kQuarterRows;
    int64_t i = 0;
    for (; i < quarters * kQuarterRows; i += kQuarterRows, from += kQuarterRows * stride) {
      for_each_vector(depth, [&](int64_t c, auto lanes) ALWAYS_INLINE_LAMBDA {
        Vector<float> features[kQuarterRows];
#pragma GCC unroll 4
        for (int row = 0; row < kQuarterRows; ++row) features[row] = read(from + row * stride, c, lanes);
        store_interleaved(rows + InterleavedRows::left(i, 0), c, features);
      });
    }
    for (; i < block; ++i, from += stride) {
      for_each_vector(depth, [&](int64_t c, auto lanes) ALWAYS_INLINE_LAMBDA {
        store_interleaved(rows + InterleavedRows::left(i, 0), c, read(from, c, lanes));
      });
    }
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_LINEAR_PACKING_H
