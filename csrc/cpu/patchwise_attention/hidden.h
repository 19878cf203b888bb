// The hidden layer of the mapping with channels in the lanes, before its ReLU: the features of a tile's footprints
// times the hidden matrix.
#if defined(SA_LAYERS_CPU_PATCHWISE_ATTENTION_HIDDEN_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PATCHWISE_ATTENTION_HIDDEN_H
#undef SA_LAYERS_CPU_PATCHWISE_ATTENTION_HIDDEN_H
#else
#define SA_LAYERS_CPU_PATCHWISE_ATTENTION_HIDDEN_H
#endif

#include "cpu/linear/matrix_product.h"
#include "cpu/patchwise_attention/problem.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Some taps and channels of the relation: as many as keep the left factor's panel in the cache.
struct Panel {
  int64_t tap_begin, tap_end, channel_begin, channel_end;

  int64_t channels() const { return channel_end - channel_begin; }
  int64_t depth() const { return (tap_end - tap_begin) * channels(); }
};

template <typename Body>
inline void for_each_panel(const PatchwiseAttention& problem, const Body& body) {
  static_assert(kHiddenDepth == kDepth);
  const int64_t channels = problem.feature_channels(), taps = problem.panel_taps();
  for (int64_t tap = 0; tap < problem.feature_taps(); tap += taps) {
    for (int64_t channel = 0; channel < channels; channel += kDepth) {
      body(Panel{tap, min(tap + taps, problem.feature_taps()), channel, min(channel + kDepth, channels)});
    }
  }
}

// The panel of some pixels: relu(scale * feature + shift). Padded zeros are read from `zeros`.
template <typename T>
void activate(const PatchwiseOperands<T>& operands, const Panel& panel, const int32_t* sources, int64_t pixels,
              const T* zeros, float* rows) {
  const int64_t source_stride = operands.problem.sources(), channels = panel.channels();
  for (int64_t tap = panel.tap_begin; tap < panel.tap_end; ++tap, rows += channels) {
    const ChannelsLast<const T> map = tap == 0 ? operands.query : operands.key;
    const int64_t at = tap * operands.problem.relation_channels + panel.channel_begin;
    const float *scales = operands.mapping.scale + at, *shifts = operands.mapping.shift + at;
    const T *const data = map.data + panel.channel_begin, *const outside = zeros + panel.channel_begin;
    // Captured by value: a store could change what a reference refers to.
    const auto activate_channels = [=](int64_t channel, auto lanes) ALWAYS_INLINE_LAMBDA {
      const Vector<float> scale = load(scales + channel, lanes), shift = load(shifts + channel, lanes);
      const int32_t* source = sources + tap;
      float* to = rows + channel;
      for (int64_t i = 0; i < pixels; ++i, source += source_stride, to += kRowStride) {
        const T* from = *source < 0 ? outside : data + *source * map.pixel_stride;
        // The zeros after the last channel are overwritten by the next tap.
        store(to, relu(scale * load(from + channel, lanes) + shift));
      }
    };
    int64_t channel = 0;
    for (; channel + kLanes<T> <= channels; channel += kLanes<T>) activate_channels(channel, AllLanes{});
    if (channel < channels) activate_channels(channel, SomeLanes{0, channels - channel});
  }
}

template <typename T>
ALWAYS_INLINE float dot_product(const T* first, const T* second, int64_t count) {
  Vector<float> sums = {};
  int64_t i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>) sums += load(first + i) * load(second + i);
  const SomeLanes rest{0, count - i};
  if (i < count) sums += load(first + i, rest) * load(second + i, rest);
  typedef float Vector128 __attribute__((vector_size(16)));
  Vector128 parts[kLanes<float> / 4], total = {};
  __builtin_memcpy(parts, &sums, sizeof(sums));
  for (const Vector128& part : parts) total += part;
  return (total[0] + total[1]) + (total[2] + total[3]);
}

// The same for relations that are products of a query and a key.
template <typename T>
void activate_products(const PatchwiseOperands<T>& operands, const Panel& panel, const int32_t* sources, int64_t pixels,
                       const T* zeros, float* rows) {
  const PatchwiseAttention& problem = operands.problem;
  const int64_t taps = problem.footprint.taps(), count = panel.depth();
  const bool is_star = problem.relation == PatchwiseRelation::kStar;
  const float *scale = operands.mapping.scale + panel.tap_begin, *shift = operands.mapping.shift + panel.tap_begin;
  const auto pixel_of = [zeros](const ChannelsLast<const T>& map, int32_t source)
                            ALWAYS_INLINE_LAMBDA { return source < 0 ? zeros : map.data + source * map.pixel_stride; };
  for (int64_t i = 0; i < pixels; ++i, sources += problem.sources(), rows += kRowStride) {
    int64_t query_tap = is_star ? 0 : panel.tap_begin / taps, key_tap = panel.tap_begin % taps;
    for (int64_t k = 0; k < count; ++k) {
      const T* const query = pixel_of(operands.query, sources[is_star ? 0 : 1 + query_tap]);
      const T* const key = pixel_of(operands.key, sources[1 + key_tap]);
      rows[k] = dot_product(query, key, problem.relation_channels);
      if (++key_tap == taps) key_tap = 0, ++query_tap;
    }
    for (int64_t k = 0; k < count; k += kLanes<float>) {
      const SomeLanes lanes{0, min(kLanes<float>, count - k)};
      store(rows + k, relu(load(rows + k, lanes) * load(scale + k, lanes) + load(shift + k, lanes)), lanes);
    }
  }
}

// Calls body(first pixel, count) for blocks of nearly equal size.
template <typename Body>
inline void for_each_block(int64_t pixels, const Body& body) {
  const int64_t blocks = ceil_div(pixels, kBlockRows);
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t begin = pixels * block / blocks;
    body(begin, pixels * (block + 1) / blocks - begin);
  }
}

// `sources` are the tile's; `hidden` has rows of hidden_stride.
template <typename T>
void compute_hidden(const PatchwiseOperands<T>& operands, const int32_t* sources, int64_t pixels, const T* zeros,
                    float* rows, float* hidden) {
  const PatchwiseMapping& mapping = operands.mapping;
  const int64_t period = operands.problem.hidden_period(), step = mapping.hidden_stride;
  for_each_panel(operands.problem, [&](const Panel& panel) {
    const bool is_first = panel.tap_begin == 0 && panel.channel_begin == 0;
    const float* const matrix =
        mapping.hidden_weight + operands.problem.hidden_offset(panel.tap_begin) + panel.channel_begin / period * step;
    for_each_block(pixels, [&](int64_t begin, int64_t count) {
      const int32_t* const block_sources = sources + begin * operands.problem.sources();
      if (operands.problem.is_product()) {
        activate_products(operands, panel, block_sources, count, zeros, rows);
      } else {
        activate(operands, panel, block_sources, count, zeros, rows);
      }
      float* const sums = hidden + begin * step;
      const Product product{rows,
                            count,
                            panel.depth(),
                            matrix,
                            step,
                            kGroupColumns,
                            is_first ? mapping.hidden_bias : sums,
                            is_first ? 0 : step,
                            sums,
                            step};
      if (period == 2) {
        multiply<RowMajor, 2>(product, step / kGroupColumns);
      } else {
        multiply<RowMajor, 1>(product, step / kGroupColumns);
      }
    });
  });
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PATCHWISE_ATTENTION_HIDDEN_H
