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
template <typename C>
struct AggregationTile {
  int64_t pixels, taps, width, vectors;  // vectors of channels of a pixel
  const int32_t* sources;                // of the first pixel and tap; the taps of a pixel follow each other
  int64_t source_stride;
  const C* value;  // the region
  const C* weights;
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
  const C *const value = tile.value + vector * lanes, *weights = tile.weights;
  const int32_t* source = tile.sources;
  const int64_t taps = tile.taps, width = tile.width;
  output += vector * lanes;
  for (int64_t p = 0; p < tile.pixels; ++p, source += tile.source_stride, weights += kTileStride) {
    Vector<C> sums[kSums][kVectors] = {};
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sums[0][v] = load(output + v * lanes);
    const auto add = [&](int64_t tap, int sum) ALWAYS_INLINE_LAMBDA {
      const Vector<C> weight = repeat<kPeriod>(weights + tap * width);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sums[sum][v] += weight * load(value + source[tap] + v * lanes);
    };
    int64_t tap = 0;
    for (; tap + kSums <= taps; tap += kSums) {
      add(tap, 0);
      if constexpr (kSums > 1) add(tap + 1, 1);
    }
    if (tap < taps) add(tap, 0);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      if constexpr (kSums > 1) sums[0][v] += sums[1][v];
      store(output + v * lanes, sums[0][v]);
    }
    output += tile.vectors * lanes;
  }
}

// Gradients of the weights and, added at their sources, of the values. The first vectors overwrite the former, the
// others add to them.
template <int kVectors, int kPeriod, bool kIsFirst, typename C>
void sum_gradients(const AggregationTile<C>& tile, int64_t vector, const C* grad_output, C* grad_weights,
                   C* grad_value) {
  constexpr int64_t lanes = kLanes<C>;
  const C *const value = tile.value + vector * lanes, *weights = tile.weights;
  const int32_t* source = tile.sources;
  const int64_t taps = tile.taps, width = tile.width;
  grad_output += vector * lanes, grad_value += vector * lanes;
  for (int64_t p = 0; p < tile.pixels; ++p, source += tile.source_stride) {
    Vector<C> gradients[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) gradients[v] = load(grad_output + v * lanes);
    for (int64_t tap = 0; tap < taps; ++tap) {
      const C* const from = value + source[tap];
      C* const to = grad_value + source[tap];
      const Vector<C> weight = repeat<kPeriod>(weights + tap * width);
      Vector<C> sums[2] = {};
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        sums[v % 2] += gradients[v] * load(from + v * lanes);
        store(to + v * lanes, load(to + v * lanes) + weight * gradients[v]);
      }
      C* const grad_weight = grad_weights + tap * width;
      Vector<C> sum = sums[0] + sums[1];
      if constexpr (kIsFirst) {
        store_folded<kPeriod>(grad_weight, sum);
      } else {
        C folded[kLanes<C>];
        store_folded<kPeriod>(folded, sum);
        for (int n = 0; n < kPeriod; ++n) grad_weight[n] += folded[n];
      }
    }
    grad_output += tile.vectors * lanes;
    weights += kTileStride, grad_weights += kTileStride;
  }
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
void sum_gradients(const AggregationTile<C>& tile, const C* grad_output, C* grad_weights, C* grad_value) {
  for_each_vectors_of(tile, [&](auto vectors, auto period, int64_t vector) ALWAYS_INLINE_LAMBDA {
    constexpr int kVectors = decltype(vectors)::value, kPeriod = decltype(period)::value;
    if (vector == 0) {
      sum_gradients<kVectors, kPeriod, true>(tile, vector, grad_output, grad_weights, grad_value);
    } else {
      sum_gradients<kVectors, kPeriod, false>(tile, vector, grad_output, grad_weights, grad_value);
    }
  });
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PATCHWISE_TRAINING_AGGREGATION_H
