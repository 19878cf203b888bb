// The stem in evaluation: a linear layer of an image's few channels, 2x2 max-pooling and ReLU, with no map between
// them. The shift is the same for all four pixels, so it is added after the maximum.
#if defined(SA_LAYERS_CPU_LINEAR_POOLED_PROJECTION_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_LINEAR_POOLED_PROJECTION_H
#undef SA_LAYERS_CPU_LINEAR_POOLED_PROJECTION_H
#else
#define SA_LAYERS_CPU_LINEAR_POOLED_PROJECTION_H
#endif

#include "cpu/simd/all_small.h"
#include "cpu/simd/vector.h"
#include "footprint.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// kVectors vectors of output channels, or the first lanes of one, of one output pixel. `corner` points to the upper
// left of its four pixels in the image's first channel. NaN stays NaN, as in torch's max-pooling and ReLU. The
// tests for NaN, which products of small numbers do not need, take as long as the rest.
template <bool kMayBeNan, int kVectors, typename T, typename Lanes>
ALWAYS_INLINE void pool_projections(const T* corner, int64_t width, int64_t channel_stride, int64_t in_channels,
                                    const Compute<T>* weight, const Compute<T>* shift, int64_t channels, T* to,
                                    Lanes lanes) {
  Vector<T> sums[4][kVectors] = {};
  for (int64_t k = 0; k < in_channels; ++k, corner += channel_stride, weight += channels) {
    const Compute<T> pixels[4] = {load_one(corner), load_one(corner + 1), load_one(corner + width),
                                  load_one(corner + width + 1)};
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const Vector<T> weights = load(weight + v * kLanes<T>, lanes);
#pragma GCC unroll 4
      for (int p = 0; p < 4; ++p) sums[p][v] += pixels[p] * weights;
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    Vector<T> pooled = sums[0][v];
#pragma GCC unroll 4
    for (int p = 1; p < 4; ++p) {
      if constexpr (kMayBeNan) {
        pooled = sums[p][v] > pooled || sums[p][v] != sums[p][v] ? sums[p][v] : pooled;
      } else {
        pooled = maximum(pooled, sums[p][v]);
      }
    }
    const Vector<T> result = pooled + load(shift + v * kLanes<T>, lanes);
    store(to + v * kLanes<T>, relu(result), lanes);
  }
}

template <bool kMayBeNan, typename T>
inline void pooled_projection_row(const T* corner, const Compute<T>* weight, const Compute<T>* shift,
                                  int64_t in_channels, int64_t width, int64_t step, int64_t channels, T* to) {
  constexpr int kVectors = kVectorBytes == 64 ? 4 : 2;  // the accumulators of four pixels fit the registers
  constexpr int64_t lanes = kLanes<T>;
  for (int64_t column = 0; column < width / 2; ++column, corner += 2, to += channels) {
    int64_t c = 0;
    for (; c + kVectors * lanes <= channels; c += kVectors * lanes) {
      pool_projections<kMayBeNan, kVectors>(corner, width, step, in_channels, weight + c, shift + c, channels, to + c,
                                            AllLanes{});
    }
    for (; c < channels; c += lanes) {
      pool_projections<kMayBeNan, 1>(corner, width, step, in_channels, weight + c, shift + c, channels, to + c,
                                     SomeLanes{0, min(lanes, channels - c)});
    }
  }
}

// Output rows first_row <= row < last_row, counted through all images.
template <typename T>
void pooled_projection(const T* image, const Compute<T>* weight, const Compute<T>* shift, int64_t in_channels,
                       int64_t height, int64_t width, int64_t channels, T* result, int64_t first_row,
                       int64_t last_row) {
  const int64_t out_height = height / 2, step = height * width;
  const bool small_weight = all_small(weight, in_channels * channels);
  for (int64_t row = first_row; row < last_row; ++row) {
    const T* corner = image + row / out_height * in_channels * step + row % out_height * 2 * width;
    bool small = small_weight;
    for (int64_t k = 0; k < in_channels; ++k) small = all_small(corner + k * step, 2 * width) && small;
    const auto pool = small ? pooled_projection_row<false, T> : pooled_projection_row<true, T>;
    pool(corner, weight, shift, in_channels, width, step, channels, result + row * (width / 2) * channels);
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_LINEAR_POOLED_PROJECTION_H
