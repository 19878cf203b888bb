// The gradient of the weights.
#if defined(SA_LAYERS_CPU_AGGREGATION_WEIGHT_GRADIENT_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_AGGREGATION_WEIGHT_GRADIENT_H
#undef SA_LAYERS_CPU_AGGREGATION_WEIGHT_GRADIENT_H
#else
#define SA_LAYERS_CPU_AGGREGATION_WEIGHT_GRADIENT_H
#endif

#include "cpu/aggregation/loops.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// weight(t, p) = sum over c of gradient(c, p) * value(c, source(t, p)), passed to emit(tap, pixel, lanes, sum).
template <int kChannels, typename T, typename Emit>
void correlate(const Band& band, const BandTables& tables, const T* gradient, int64_t channel_stride,
               const Compute<T>* copy, const Emit& emit) {
  const int64_t columns = band.footprint.columns.kernel, channel_size = band.size();
  for_each_vector<T>(band, [&](auto pair, int64_t pixel, int64_t second_pixel, int64_t offset,
                               auto lanes) ALWAYS_INLINE_LAMBDA {
    constexpr bool kPair = decltype(pair)::value;
    Vector<T> gradients[kChannels], second_gradients[kChannels];
    for (int c = 0; c < kChannels; ++c) {
      gradients[c] = load(gradient + c * channel_stride + pixel, lanes);
      if constexpr (kPair) second_gradients[c] = load(gradient + c * channel_stride + second_pixel, lanes);
    }
    for_each_tap_row<kPair>(band.footprint.rows.kernel, [&](auto first, auto second, int64_t i) ALWAYS_INLINE_LAMBDA {
      for (int64_t j = 0; j < columns; ++j) {
        const Compute<T>* values = copy + offset + i * band.tap_stride + tables.offset(band, j);
        Vector<T> sum = {}, second_sum = {};
#pragma GCC unroll 8
        for (int c = 0; c < kChannels; ++c) {
          Vector<T> value = load(values + c * channel_size);
          if constexpr (first.value && second.value) keep_in_register(value);
          if constexpr (first.value) sum += gradients[c] * value;
          if constexpr (second.value) second_sum += second_gradients[c] * value;
        }
        if constexpr (first.value) emit(i * columns + j, pixel, lanes, sum);
        if constexpr (second.value) emit((i - 1) * columns + j, second_pixel, lanes, second_sum);
      }
    });
  });
}

// The same for any number of channels. Their gradients are kept in scratch: 2 * channels * kLanes<T> elements.
template <typename T, typename Emit>
void correlate_many(int64_t channels, const Band& band, const BandTables& tables, const T* gradient,
                    int64_t channel_stride, const Compute<T>* copy, Compute<T>* scratch, const Emit& emit) {
  const int64_t columns = band.footprint.columns.kernel, channel_size = band.size();
  for_each_vector<T>(band, [&](auto pair, int64_t pixel, int64_t second_pixel, int64_t offset,
                               auto lanes) ALWAYS_INLINE_LAMBDA {
    constexpr bool kPair = decltype(pair)::value;
    for (int64_t c = 0; c < channels; ++c) {
      store(scratch + 2 * c * kLanes<T>, load(gradient + c * channel_stride + pixel, lanes));
      if constexpr (kPair) {
        store(scratch + (2 * c + 1) * kLanes<T>, load(gradient + c * channel_stride + second_pixel, lanes));
      }
    }
    for_each_tap_row<kPair>(band.footprint.rows.kernel, [&](auto first, auto second, int64_t i) ALWAYS_INLINE_LAMBDA {
      for (int64_t j = 0; j < columns; ++j) {
        const Compute<T>* values = copy + offset + i * band.tap_stride + tables.offset(band, j);
        Vector<T> sum = {}, second_sum = {};
        for (int64_t c = 0; c < channels; ++c) {
          Vector<T> value = load(values + c * channel_size);
          if constexpr (first.value && second.value) keep_in_register(value);
          if constexpr (first.value) sum += load(scratch + 2 * c * kLanes<T>) * value;
          if constexpr (second.value) second_sum += load(scratch + (2 * c + 1) * kLanes<T>) * value;
        }
        if constexpr (first.value) emit(i * columns + j, pixel, lanes, sum);
        if constexpr (second.value) emit((i - 1) * columns + j, second_pixel, lanes, second_sum);
      }
    });
  });
}

template <typename T, typename Emit>
void correlate_channels(const Aggregation& problem, const AggregationTask& task, const T* grad_output, const T* value,
                        const Emit& emit) {
  const Band band(problem.footprint, task.row_begin, task.row_end);
  const BandTables tables(band);
  const int64_t channels = problem.sharing(task.weight_channel), step = problem.weight_channels;
  const Scratch<Compute<T>> copy(channels * band.size() + kLanes<T>);
  value += task.value_map(problem), grad_output += task.output_map(problem);
  for (int64_t c = 0; c < channels; ++c) {
    copy_band(band, tables, value + c * step * band.footprint.pixels(), copy.data() + c * band.size());
  }
  const int64_t channel_stride = step * band.footprint.output_pixels();
  if (channels == 8) {
    correlate<8>(band, tables, grad_output, channel_stride, copy.data(), emit);
  } else if (channels == 1) {
    correlate<1>(band, tables, grad_output, channel_stride, copy.data(), emit);
  } else {
    const Scratch<Compute<T>> scratch(2 * channels * kLanes<T>);
    correlate_many(channels, band, tables, grad_output, channel_stride, copy.data(), scratch.data(), emit);
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_AGGREGATION_WEIGHT_GRADIENT_H
