// The sum over the taps of the values times their weights. The weights are computed from the hidden layer, a panel of
// taps at a time.
#if defined(SA_LAYERS_CPU_PATCHWISE_ATTENTION_WEIGHTED_SUM_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PATCHWISE_ATTENTION_WEIGHTED_SUM_H
#undef SA_LAYERS_CPU_PATCHWISE_ATTENTION_WEIGHTED_SUM_H
#else
#define SA_LAYERS_CPU_PATCHWISE_ATTENTION_WEIGHTED_SUM_H
#endif

#include "cpu/linear/matrix_product.h"
#include "cpu/patchwise_attention/hidden.h"
#include "cpu/patchwise_attention/problem.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// relu(hidden), one row a pixel, of the hidden channels begin <= channel < end.
inline void activate_hidden(const PatchwiseAttention& problem, const PatchwiseMapping& mapping, const float* hidden,
                            int64_t pixels, int64_t begin, int64_t end, float* rows) {
  for (int64_t i = 0; i < pixels; ++i, hidden += mapping.hidden_stride, rows += kRowStride) {
    if (problem.hidden_period() == 2) {
      for (int64_t n = begin; n < end; ++n) {
        const float sum = hidden[2 * n] + hidden[2 * n + 1];
        rows[n - begin] = sum < 0 ? 0 : sum;
      }
    } else if (problem.pixels_in_lanes) {
      for (int64_t n = begin; n < end; ++n) rows[n - begin] = hidden[n] < 0 ? 0 : hidden[n];
    } else {
      for (int64_t n = begin; n < end; n += kLanes<float>) store(rows + n - begin, relu(load(hidden + n)));
    }
  }
}

// The weights of a panel of taps, starting at `column`.
inline void compute_weights(const PatchwiseAttention& problem, const PatchwiseMapping& mapping, const float* hidden,
                            int64_t pixels, int64_t column, int64_t columns, float* rows, float* weights) {
  for (int64_t begin = 0; begin < problem.weight_channels; begin += kDepth) {
    const int64_t end = min(begin + kDepth, problem.weight_channels);
    activate_hidden(problem, mapping, hidden, pixels, begin, end, rows);
    const Product product{rows,
                          pixels,
                          end - begin,
                          mapping.weight + begin * mapping.weight_stride + column,
                          mapping.weight_stride,
                          kGroupColumns,
                          begin == 0 ? mapping.bias + column : weights,
                          begin == 0 ? 0 : columns,
                          weights,
                          columns};
    multiply<RowMajor, 1>(product, columns / kGroupColumns);
  }
}

// The weighted sum of a block of pixels over a panel of taps.
template <typename T>
struct WeightedSum {
  const PatchwiseOperands<T>& operands;
  int64_t pixels, taps;
  const int32_t* sources;  // of the panel's first tap
  const T* zeros;
  const float* weights;    // tap_stride for each tap
  int64_t weights_stride;  // between pixels
  float* partial;          // sums of all channels, kept between panels
  T* output;
  bool is_first, is_last;

  // kVectors vectors of channels that share their weights.
  template <int kVectors, int kPeriod, typename Lanes>
  void add(int64_t channel, int64_t channel_stride, const float* weight, Lanes lanes) const {
    constexpr int kAccumulators = kVectors > 4 ? 1 : 2;  // so that an addition need not wait for the one before it
    const int64_t tap_stride = operands.problem.tap_stride(), pixel_stride = operands.value.pixel_stride,
                  tap_count = taps;
    const T *const data = operands.value.data + channel, *const outside = zeros + channel;
    const int32_t* source = sources;
    for (int64_t i = 0; i < pixels; ++i, source += operands.problem.sources(), weight += weights_stride) {
      Vector<float> sums[kAccumulators][kVectors] = {};
      const auto add_tap = [=, &sums](int64_t tap, int accumulator) ALWAYS_INLINE_LAMBDA {
        const T* const values = source[tap] < 0 ? outside : data + source[tap] * pixel_stride;
        const Vector<float> factor = repeat<kPeriod>(weight + tap * tap_stride);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sums[accumulator][v] += factor * load(values + v * channel_stride, lanes);
      };
      int64_t tap = 0;
      for (; tap + kAccumulators <= tap_count; tap += kAccumulators) {
        add_tap(tap, 0);
        if constexpr (kAccumulators > 1) add_tap(tap + 1, 1);
      }
      if (tap < tap_count) add_tap(tap, 0);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        if constexpr (kAccumulators > 1) sums[0][v] += sums[1][v];
        finish(i, channel + v * channel_stride, sums[0][v], lanes);
      }
    }
  }

  template <typename Lanes>
  ALWAYS_INLINE void finish(int64_t pixel, int64_t channel, Vector<float> sum, Lanes lanes) const {
    const PatchwiseMapping& mapping = operands.mapping;
    float* const between = partial + pixel * operands.problem.channels + channel;
    T* const to = output + pixel * operands.output.pixel_stride + channel;
    if (!is_first) sum += load(between, lanes);
    if (!is_last) {
      store(between, sum, lanes);
    } else if (mapping.output_scale == nullptr) {
      store(to, sum, lanes);
    } else {
      const Vector<float> scaled = sum * load(mapping.output_scale + channel, lanes);
      store(to, relu(scaled + load(mapping.output_shift + channel, lanes)), lanes);
    }
  }

  template <int kPeriod, typename Lanes>
  void add_shared(int64_t channel, int64_t channel_stride, int64_t count, const float* weight, Lanes lanes) const {
    for (; count >= 8; count -= 8, channel += 8 * channel_stride)
      add<8, kPeriod>(channel, channel_stride, weight, lanes);
    if (count & 4) add<4, kPeriod>(channel, channel_stride, weight, lanes), channel += 4 * channel_stride;
    if (count & 2) add<2, kPeriod>(channel, channel_stride, weight, lanes), channel += 2 * channel_stride;
    if (count & 1) add<1, kPeriod>(channel, channel_stride, weight, lanes);
  }

  // Weights that fill a vector more than once: all vectors of channels share one vector of weights.
  template <int kPeriod>
  void add_periodic() const {
    const int64_t channels = operands.problem.channels, full = channels / kLanes<float>;
    add_shared<kPeriod>(0, kLanes<float>, full, weights, AllLanes{});
    const SomeLanes rest{0, channels - full * kLanes<float>};
    if (rest.end > 0) add<1, kPeriod>(full * kLanes<float>, 0, weights, rest);
  }

  void add_all() const {
    const int64_t step = operands.problem.weight_channels, count = operands.problem.channels / step;
    if (step == 1) return add_periodic<1>();
    if constexpr (kLanes<float> > 2) {
      if (step == 2) return add_periodic<2>();
    }
    if constexpr (kLanes<float> > 4) {
      if (step == 4) return add_periodic<4>();
    }
    if constexpr (kLanes<float> > 8) {
      if (step == 8) return add_periodic<8>();
    }
    int64_t channel = 0;
    for (; channel + kLanes<float> <= step; channel += kLanes<float>) {
      add_shared<kLanes<float>>(channel, step, count, weights + channel, AllLanes{});
    }
    if (channel < step) {
      add_shared<kLanes<float>>(channel, step, count, weights + channel, SomeLanes{0, step - channel});
    }
  }
};

// `weights` has room for a panel of a block; `partial` for the sums of the tile, if a panel does not hold all taps.
template <typename T>
void sum_values(const PatchwiseOperands<T>& operands, const int32_t* sources, int64_t pixels, const T* zeros,
                const float* hidden, float* rows, float* weights, float* partial, T* output) {
  const PatchwiseAttention& problem = operands.problem;
  const int64_t taps = problem.footprint.taps(), tap_stride = problem.tap_stride(),
                panel_taps = problem.weight_panel_taps();
  for (int64_t tap = 0; tap < taps; tap += panel_taps) {
    const int64_t count = min(panel_taps, taps - tap), columns = pad_columns(count * tap_stride);
    for_each_block(pixels, [&](int64_t begin, int64_t block) {
      const float* const block_hidden = hidden + begin * operands.mapping.hidden_stride;
      compute_weights(problem, operands.mapping, block_hidden, block, tap * tap_stride, columns, rows, weights);
      const WeightedSum<T> sums{operands,
                                block,
                                count,
                                sources + begin * problem.sources() + 1 + tap,
                                zeros,
                                weights,
                                columns,
                                partial + begin * problem.channels,
                                output + begin * operands.output.pixel_stride,
                                tap == 0,
                                tap + count == taps};
      sums.add_all();
    });
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PATCHWISE_ATTENTION_WEIGHTED_SUM_H
