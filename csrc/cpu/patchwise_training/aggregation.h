// The innermost loops of the weighted sum: for every pixel of a tile, a panel of taps, with the channels in vectors.
#if defined(SA_LAYERS_CPU_PATCHWISE_TRAINING_AGGREGATION_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PATCHWISE_TRAINING_AGGREGATION_H
#undef SA_LAYERS_CPU_PATCHWISE_TRAINING_AGGREGATION_H
#else
#define SA_LAYERS_CPU_PATCHWISE_TRAINING_AGGREGATION_H
#endif

#include "cpu/patchwise_training/products.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// A tile with a panel of taps. Weights and their gradients are rows of kTileStride, with `width` columns for each tap.
//
// If neighbouring footprints overlap tap by tap, two pixels of a row are computed together: tap j of the first reads
// what tap j - 1 of the second reads.
template <typename C>
struct AggregationTile {
  int64_t pixels, taps, width, vectors;  // vectors of channels of a pixel
  int64_t row_taps;                      // taps in a row of the footprint, or 0 if neighbours do not overlap
  int64_t column, row_pixels;            // the first pixel's column of the output, and the number of columns
  const int32_t* sources;                // of the first pixel and tap; the taps of a pixel follow each other
  int64_t source_stride;
  const C* value;  // the region
  const C* weights;

  // Calls one(pixel) and two(pixel, the next pixel) for all pixels.
  template <typename One, typename Two>
  ALWAYS_INLINE void for_each_pixel(const One& one, const Two& two) const {
    for (int64_t p = 0, x = column; p < pixels;) {
      if (row_taps > 0 && p + 1 < pixels && x + 1 < row_pixels) {
        two(p), p += 2, x += 2;
      } else {
        one(p), p += 1, x += 1;
      }
      if (x >= row_pixels) x -= row_pixels;
    }
  }
  // Calls body(source, tap, first, second) for the sources of two pixels; first and second say which of them read it,
  // the first as `tap`, the second as tap - 1.
  template <typename Body>
  ALWAYS_INLINE void for_each_source_of_two(int64_t pixel, const Body& body) const {
    const int32_t* const first = sources + pixel * source_stride;
    for (int64_t row = 0; row < taps; row += row_taps) {
      body(first[row], row, Constant<true>{}, Constant<false>{});
      for (int64_t tap = row + 1; tap < row + row_taps; ++tap) {
        body(first[tap], tap, Constant<true>{}, Constant<true>{});
      }
      const int64_t end = row + row_taps;
      body(first[source_stride + end - 1], end, Constant<false>{}, Constant<true>{});
    }
  }
};

// The sums of the lanes that are kPeriod apart.
template <int kPeriod, typename C>
ALWAYS_INLINE void store_folded(C* to, Vector<C> sum) {
  if constexpr (kPeriod >= kLanes<C>) {
    store(to, sum);
    return;
  }
#if SA_LAYERS_TARGET == SA_LAYERS_AVX512
  if constexpr (kPeriod <= 8) {
    __m256 half = _mm256_add_ps(_mm512_maskz_extractf32x8_ps(0xff, sum, 0), _mm512_maskz_extractf32x8_ps(0xff, sum, 1));
    if constexpr (kPeriod == 8) return _mm256_storeu_ps(to, half);
    __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    if constexpr (kPeriod == 4) return _mm_storeu_ps(to, quarter);
    quarter = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    if constexpr (kPeriod == 2) return _mm_storel_pi(reinterpret_cast<__m64*>(to), quarter);
    *to = quarter[0] + quarter[1];
    return;
  }
#endif
  C lanes[kLanes<C>];
  store(lanes, sum);
  for (int n = 0; n < kPeriod; ++n) {
    C total = lanes[n];
    for (int64_t i = n + kPeriod; i < kLanes<C>; i += kPeriod) total += lanes[i];
    to[n] = total;
  }
}

// output[pixel] += sum over the taps of weight * value, for the vectors from `vector` on.
template <int kVectors, int kPeriod, typename C>
void sum_values(const AggregationTile<C>& tile, int64_t vector, C* output) {
  constexpr int kSums = kVectors > 2 ? 1 : 2;  // so that an addition need not wait for the one before it
  constexpr int64_t lanes = kLanes<C>;
  const C* const value = tile.value + vector * lanes;
  const int64_t width = tile.width, pixel_size = tile.vectors * lanes;
  output += vector * lanes;
  const auto one = [&](int64_t pixel) ALWAYS_INLINE_LAMBDA {
    const int32_t* const source = tile.sources + pixel * tile.source_stride;
    const C* const weights = tile.weights + pixel * kTileStride;
    C* const to = output + pixel * pixel_size;
    Vector<C> sums[kSums][kVectors] = {};
    const auto add = [&](int64_t tap, int sum) ALWAYS_INLINE_LAMBDA {
      const Vector<C> weight = repeat<kPeriod>(weights + tap * width);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sums[sum][v] += weight * load(value + source[tap] + v * lanes);
    };
    int64_t tap = 0;
    for (; tap + kSums <= tile.taps; tap += kSums) {
      add(tap, 0);
      if constexpr (kSums > 1) add(tap + 1, 1);
    }
    if (tap < tile.taps) add(tap, 0);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      if constexpr (kSums > 1) sums[0][v] += sums[1][v];
      store(to + v * lanes, load(to + v * lanes) + sums[0][v]);
    }
  };
  const auto two = [&](int64_t pixel) ALWAYS_INLINE_LAMBDA {
    const C* const weights = tile.weights + pixel * kTileStride;
    Vector<C> sums[2][kVectors] = {};
    tile.for_each_source_of_two(pixel, [&](int64_t source, int64_t tap, auto first, auto second) ALWAYS_INLINE_LAMBDA {
      Vector<C> of_first = {}, of_second = {};
      if constexpr (decltype(first)::value) of_first = repeat<kPeriod>(weights + tap * width);
      if constexpr (decltype(second)::value) of_second = repeat<kPeriod>(weights + kTileStride + (tap - 1) * width);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const Vector<C> numbers = load(value + source + v * lanes);
        if constexpr (decltype(first)::value) sums[0][v] += of_first * numbers;
        if constexpr (decltype(second)::value) sums[1][v] += of_second * numbers;
      }
    });
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      C* const to = output + (pixel + i) * pixel_size;
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) store(to + v * lanes, load(to + v * lanes) + sums[i][v]);
    }
  };
  tile.for_each_pixel(one, two);
}

// Stores or adds the gradients of a tap's weights.
template <int kPeriod, bool kIsFirst, typename C>
ALWAYS_INLINE void finish_weights(C* grad_weights, Vector<C> sum) {
  if constexpr (kIsFirst) {
    store_folded<kPeriod>(grad_weights, sum);
  } else {
    C folded[kLanes<C>];
    store_folded<kPeriod>(folded, sum);
    for (int n = 0; n < kPeriod; ++n) grad_weights[n] += folded[n];
  }
}

// The gradient of the output of a tile, or of all pixels: in a map, or copied like a region.
template <typename C>
struct OutputGradient {
  const C* data;
  int64_t pixel_stride, vector_step;

  OutputGradient from(int64_t pixel, int64_t vector) const {
    return {data + pixel * pixel_stride + vector * vector_step, pixel_stride, vector_step};
  }
};

// Gradients of the weights and, added at their sources, of the values. The first vectors overwrite the former, the
// others add to them.
template <int kVectors, int kPeriod, bool kIsFirst, typename C>
void sum_gradients(const AggregationTile<C>& tile, int64_t vector, const OutputGradient<C>& output, C* grad_weights,
                   C* grad_value) {
  constexpr int64_t lanes = kLanes<C>;
  const C* const value = tile.value + vector * lanes;
  const int64_t width = tile.width;
  const OutputGradient<C> grad_output = output.from(0, vector);
  grad_value += vector * lanes;
  const auto one = [&](int64_t pixel) ALWAYS_INLINE_LAMBDA {
    const int32_t* const source = tile.sources + pixel * tile.source_stride;
    const C* const weights = tile.weights + pixel * kTileStride;
    Vector<C> gradients[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) gradients[v] = load(grad_output.from(pixel, v).data);
    for (int64_t tap = 0; tap < tile.taps; ++tap) {
      const C* const from = value + source[tap];
      C* const to = grad_value + source[tap];
      const Vector<C> weight = repeat<kPeriod>(weights + tap * width);
      Vector<C> sums[2] = {};
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        sums[v % 2] += gradients[v] * load(from + v * lanes);
        store(to + v * lanes, load(to + v * lanes) + weight * gradients[v]);
      }
      finish_weights<kPeriod, kIsFirst>(grad_weights + pixel * kTileStride + tap * width, sums[0] + sums[1]);
    }
  };
  const auto two = [&](int64_t pixel) ALWAYS_INLINE_LAMBDA {
    const C* const weights = tile.weights + pixel * kTileStride;
    C* const of_weights = grad_weights + pixel * kTileStride;
    Vector<C> gradients[2][kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      gradients[0][v] = load(grad_output.from(pixel, v).data);
      gradients[1][v] = load(grad_output.from(pixel + 1, v).data);
    }
    tile.for_each_source_of_two(pixel, [&](int64_t source, int64_t tap, auto first, auto second) ALWAYS_INLINE_LAMBDA {
      const C* const from = value + source;
      C* const to = grad_value + source;
      Vector<C> of_first = {}, of_second = {}, sums[2][2] = {};
      if constexpr (decltype(first)::value) of_first = repeat<kPeriod>(weights + tap * width);
      if constexpr (decltype(second)::value) of_second = repeat<kPeriod>(weights + kTileStride + (tap - 1) * width);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const Vector<C> numbers = load(from + v * lanes);
        Vector<C> sum = load(to + v * lanes);
        if constexpr (decltype(first)::value) {
          sums[0][v % 2] += gradients[0][v] * numbers, sum += of_first * gradients[0][v];
        }
        if constexpr (decltype(second)::value) {
          sums[1][v % 2] += gradients[1][v] * numbers, sum += of_second * gradients[1][v];
        }
        store(to + v * lanes, sum);
      }
      if constexpr (decltype(first)::value) {
        finish_weights<kPeriod, kIsFirst>(of_weights + tap * width, sums[0][0] + sums[0][1]);
      }
      if constexpr (decltype(second)::value) {
        finish_weights<kPeriod, kIsFirst>(of_weights + kTileStride + (tap - 1) * width, sums[1][0] + sums[1][1]);
      }
    });
  };
  tile.for_each_pixel(one, two);
}

// Calls body(number of vectors, period, first vector) for all vectors of channels, up to eight at a time.
template <int kPeriod, typename Body>
ALWAYS_INLINE void for_each_vectors(int64_t vectors, const Body& body) {
  int64_t vector = 0;
  for (; vector + 8 <= vectors; vector += 8) body(Constant<8>{}, Constant<kPeriod>{}, vector);
  if (vectors & 4) body(Constant<4>{}, Constant<kPeriod>{}, vector), vector += 4;
  if (vectors & 2) body(Constant<2>{}, Constant<kPeriod>{}, vector), vector += 2;
  if (vectors & 1) body(Constant<1>{}, Constant<kPeriod>{}, vector);
}

template <typename C, typename Body>
ALWAYS_INLINE void for_each_vectors_of(const AggregationTile<C>& tile, const Body& body) {
  if (tile.width == 1) return for_each_vectors<1>(tile.vectors, body);
  if constexpr (kLanes<C> > 2) {
    if (tile.width == 2) return for_each_vectors<2>(tile.vectors, body);
  }
  if constexpr (kLanes<C> > 4) {
    if (tile.width == 4) return for_each_vectors<4>(tile.vectors, body);
  }
  if constexpr (kLanes<C> > 8) {
    if (tile.width == 8) return for_each_vectors<8>(tile.vectors, body);
  }
  for_each_vectors<kLanes<C>>(tile.vectors, body);
}

template <typename C>
void sum_values(const AggregationTile<C>& tile, C* output) {
  for_each_vectors_of(tile, [&](auto vectors, auto period, int64_t vector) ALWAYS_INLINE_LAMBDA {
    sum_values<decltype(vectors)::value, decltype(period)::value>(tile, vector, output);
  });
}

template <typename C>
void sum_gradients(const AggregationTile<C>& tile, const OutputGradient<C>& output, C* grad_weights, C* grad_value) {
  for_each_vectors_of(tile, [&](auto vectors, auto period, int64_t vector) ALWAYS_INLINE_LAMBDA {
    constexpr int kVectors = decltype(vectors)::value, kPeriod = decltype(period)::value;
    if (vector == 0) {
      sum_gradients<kVectors, kPeriod, true>(tile, vector, output, grad_weights, grad_value);
    } else {
      sum_gradients<kVectors, kPeriod, false>(tile, vector, output, grad_weights, grad_value);
    }
  });
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PATCHWISE_TRAINING_AGGREGATION_H
