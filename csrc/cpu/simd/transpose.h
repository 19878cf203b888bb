// Transposes between channels-last rows, in which the channels of a pixel are contiguous, and planes, in which the
// pixels of a channel are.
#if defined(SA_LAYERS_CPU_SIMD_TRANSPOSE_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_SIMD_TRANSPOSE_H
#undef SA_LAYERS_CPU_SIMD_TRANSPOSE_H
#else
#define SA_LAYERS_CPU_SIMD_TRANSPOSE_H
#endif

#include "cpu/simd/vector.h"
#include "footprint.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// to[c * plane + x] = from[x * pixel + c].
template <typename C>
inline void to_planes(const C* from, int64_t pixel, int64_t pixels, int64_t channels, C* to, int64_t plane) {
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t x = 0; x < pixels; ++x) to[c * plane + x] = from[x * pixel + c];
  }
}

// to[x * pixel + c] = from[c * plane + x], for at most one vector of pixels.
template <typename C>
inline void from_planes(const C* from, int64_t plane, int64_t pixels, int64_t channels, C* to, int64_t pixel) {
  for (int64_t x = 0; x < pixels; ++x) {
    for (int64_t c = 0; c < channels; ++c) to[x * pixel + c] = from[c * plane + x];
  }
}

#if SA_LAYERS_TARGET != SA_LAYERS_BASELINE
// A vector holds four channels of each of kVectorPixels pixels, which are four apart: pixels 0, 4, 8, 12 of a run
// of 16.
constexpr int kVectorPixels = kLanes<float> / 4;

#if SA_LAYERS_TARGET == SA_LAYERS_AVX512
ALWAYS_INLINE __m512 load_every_fourth(const float* from, int64_t pixel) {
  __m512 vector = _mm512_maskz_broadcast_f32x4(0xffff, _mm_loadu_ps(from));
  vector = _mm512_mask_broadcast_f32x4(vector, 0x00f0, _mm_loadu_ps(from + 4 * pixel));
  vector = _mm512_mask_broadcast_f32x4(vector, 0x0f00, _mm_loadu_ps(from + 8 * pixel));
  return _mm512_mask_broadcast_f32x4(vector, 0xf000, _mm_loadu_ps(from + 12 * pixel));
}

template <int kPixel>
ALWAYS_INLINE __m128 four_channels_of(__m512 vector) {
  return _mm512_maskz_extractf32x4_ps(0xf, vector, kPixel);
}

// Transposes the 4 x 4 matrices that lie in the same 128 bits of four vectors.
ALWAYS_INLINE void transpose_4x4(__m512 (&rows)[4]) {
  constexpr __mmask16 all = 0xffff;  // GCC 12 warns of undefined lanes in the intrinsics without a mask
  const __m512d low01 = _mm512_castps_pd(_mm512_maskz_unpacklo_ps(all, rows[0], rows[1]));
  const __m512d high01 = _mm512_castps_pd(_mm512_maskz_unpackhi_ps(all, rows[0], rows[1]));
  const __m512d low23 = _mm512_castps_pd(_mm512_maskz_unpacklo_ps(all, rows[2], rows[3]));
  const __m512d high23 = _mm512_castps_pd(_mm512_maskz_unpackhi_ps(all, rows[2], rows[3]));
  rows[0] = _mm512_castpd_ps(_mm512_maskz_unpacklo_pd(0xff, low01, low23));
  rows[1] = _mm512_castpd_ps(_mm512_maskz_unpackhi_pd(0xff, low01, low23));
  rows[2] = _mm512_castpd_ps(_mm512_maskz_unpacklo_pd(0xff, high01, high23));
  rows[3] = _mm512_castpd_ps(_mm512_maskz_unpackhi_pd(0xff, high01, high23));
}

// Calls store(channel, vector) for 16 channels of 16 pixels. Each row of the matrix is one cache line and is read once:
// rows that are a power of two apart compete for the cache.
template <typename Store>
ALWAYS_INLINE void transpose_16x16(const float* from, int64_t pixel, const Store& store) {
  constexpr __mmask16 all = 0xffff;
  __m512 rows[4][4];  // the element [g][j] holds the pixels 4 g to 4 g + 3 of the channels j, j + 4, j + 8 and j + 12
#pragma GCC unroll 4
  for (int g = 0; g < 4; ++g) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) rows[g][i] = load(from + (4 * g + i) * pixel);
    transpose_4x4(rows[g]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512 even01 = _mm512_maskz_shuffle_f32x4(all, rows[0][j], rows[1][j], 0x88);
    const __m512 even23 = _mm512_maskz_shuffle_f32x4(all, rows[2][j], rows[3][j], 0x88);
    const __m512 odd01 = _mm512_maskz_shuffle_f32x4(all, rows[0][j], rows[1][j], 0xdd);
    const __m512 odd23 = _mm512_maskz_shuffle_f32x4(all, rows[2][j], rows[3][j], 0xdd);
    store(j, Vector<float>(_mm512_maskz_shuffle_f32x4(all, even01, even23, 0x88)));
    store(j + 4, Vector<float>(_mm512_maskz_shuffle_f32x4(all, odd01, odd23, 0x88)));
    store(j + 8, Vector<float>(_mm512_maskz_shuffle_f32x4(all, even01, even23, 0xdd)));
    store(j + 12, Vector<float>(_mm512_maskz_shuffle_f32x4(all, odd01, odd23, 0xdd)));
  }
}
#else
ALWAYS_INLINE __m256 load_every_fourth(const float* from, int64_t pixel) {
  return _mm256_set_m128(_mm_loadu_ps(from + 4 * pixel), _mm_loadu_ps(from));
}

template <int kPixel>
ALWAYS_INLINE __m128 four_channels_of(__m256 vector) {
  return _mm256_extractf128_ps(vector, kPixel);
}

ALWAYS_INLINE void transpose_4x4(__m256 (&rows)[4]) {
  const __m256d low01 = _mm256_castps_pd(_mm256_unpacklo_ps(rows[0], rows[1]));
  const __m256d high01 = _mm256_castps_pd(_mm256_unpackhi_ps(rows[0], rows[1]));
  const __m256d low23 = _mm256_castps_pd(_mm256_unpacklo_ps(rows[2], rows[3]));
  const __m256d high23 = _mm256_castps_pd(_mm256_unpackhi_ps(rows[2], rows[3]));
  rows[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(low01, low23));
  rows[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low01, low23));
  rows[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(high01, high23));
  rows[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(high01, high23));
}
#endif

// Transposes at least one vector of pixels; store(channel, first pixel, vector) is called for some of them twice, since
// the last vector and the last block of channels overlap those before them.
template <typename Store>
ALWAYS_INLINE void for_each_plane(const float* from, int64_t pixel, int64_t pixels, int64_t channels,
                                  const Store& store_vector) {
  constexpr int64_t lanes = kLanes<float>;
  for (int64_t x = 0; x < pixels; x += lanes) {
    const int64_t first = min(x, pixels - lanes);
    int64_t c = 0;
#if SA_LAYERS_TARGET == SA_LAYERS_AVX512
    for (; c < channels && channels >= lanes; c += lanes) {
      const int64_t begin = min(c, channels - lanes);
      transpose_16x16(from + first * pixel + begin, pixel, [&](int64_t i, Vector<float> vector) ALWAYS_INLINE_LAMBDA {
        store_vector(begin + i, first, vector);
      });
    }
#endif
    for (; c < channels / 4 * 4; c += 4) {
      decltype(load_every_fourth(from, pixel)) rows[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) rows[i] = load_every_fourth(from + (first + i) * pixel + c, pixel);
      transpose_4x4(rows);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) store_vector(c + i, first, Vector<float>(rows[i]));
    }
    for (; c < channels; ++c) {
      Vector<float> vector;
      for (int64_t i = 0; i < lanes; ++i) vector[i] = from[(first + i) * pixel + c];
      store_vector(c, first, vector);
    }
  }
}

inline void to_planes(const float* from, int64_t pixel, int64_t pixels, int64_t channels, float* to, int64_t plane) {
  if (pixels < kLanes<float>) return to_planes<float>(from, pixel, pixels, channels, to, plane);
  for_each_plane(from, pixel, pixels, channels,
                 [=](int64_t channel, int64_t first, Vector<float> vector)
                     ALWAYS_INLINE_LAMBDA { store(to + channel * plane + first, vector); });
}

// Stores four channels of every fourth pixel, for those of the `pixels` pixels that exist.
template <int kPixel = 0, typename V>
ALWAYS_INLINE void store_every_fourth(V vector, int64_t pixels, float* to, int64_t pixel) {
  if (pixels <= 4 * kPixel) return;
  _mm_storeu_ps(to + 4 * kPixel * pixel, four_channels_of<kPixel>(vector));
  if constexpr (kPixel + 1 < kVectorPixels) store_every_fourth<kPixel + 1>(vector, pixels, to, pixel);
}

inline void from_planes(const float* from, int64_t plane, int64_t pixels, int64_t channels, float* to, int64_t pixel) {
  const int64_t blocked = channels / 4 * 4;
  for (int64_t c = 0; c < blocked; c += 4) {
    decltype(load_every_fourth(from, pixel)) rows[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) rows[i] = load(from + (c + i) * plane);
    transpose_4x4(rows);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) store_every_fourth(rows[i], pixels - i, to + i * pixel + c, pixel);
  }
  from_planes<float>(from + blocked * plane, plane, pixels, channels - blocked, to + blocked, pixel);
}
#endif

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_SIMD_TRANSPOSE_H
