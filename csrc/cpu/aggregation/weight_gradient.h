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

// weight(t, p) = sum over c of gradient(c, p) * value(c, source(t, p)).
//
// A sink takes the sums of a vector of pixels. `open(pixel, lanes, index)` makes one, with index 1 for the second of a
// pair and 0 otherwise. Its scale(gradient) is what enters the sums, add(tap, sum) is called for the taps in order, and
// finish() after the last.
template <int kChannels, typename T, typename Open>
void correlate(const Band& band, const BandTables& tables, const T* gradient, int64_t channel_stride,
               const Compute<T>* copy, const Open& open) {
  const int64_t columns = band.footprint.columns.kernel, channel_size = band.size();
  for_each_vector<T>(band, tables,
                     [&](auto pair, int64_t pixel, int64_t second_pixel, int64_t offset, const int64_t* column_offsets,
                         auto lanes) ALWAYS_INLINE_LAMBDA {
                       constexpr bool kPair = decltype(pair)::value;
                       auto sink = open(pixel, lanes, 0), second_sink = open(kPair ? second_pixel : pixel, lanes, 1);
                       Vector<T> gradients[kChannels], second_gradients[kChannels];
                       for (int c = 0; c < kChannels; ++c) {
                         const T* from = gradient + c * channel_stride;
                         gradients[c] = sink.scale(load(from + pixel, lanes));
                         if constexpr (kPair) second_gradients[c] = second_sink.scale(load(from + second_pixel, lanes));
                       }
                       for_each_tap_row<kPair>(
                           band.footprint.rows.kernel, [&](auto first, auto second, int64_t i) ALWAYS_INLINE_LAMBDA {
                             for (int64_t j = 0; j < columns; ++j) {
                               const Compute<T>* values = copy + offset + i * band.tap_stride + column_offsets[j];
                               Vector<T> sum = {}, second_sum = {};
#pragma GCC unroll 8
                               for (int c = 0; c < kChannels; ++c) {
                                 Vector<T> value = load(values + c * channel_size);
                                 if constexpr (first.value && second.value) keep_in_register(value);
                                 if constexpr (first.value) sum += gradients[c] * value;
                                 if constexpr (second.value) second_sum += second_gradients[c] * value;
                               }
                               if constexpr (first.value) sink.add(i * columns + j, sum);
                               if constexpr (second.value) second_sink.add((i - 1) * columns + j, second_sum);
                             }
                           });
                       sink.finish();
                       if constexpr (kPair) second_sink.finish();
                     });
}

// The same for any number of channels. Their gradients are kept in scratch: 2 * channels * kLanes<T> elements.
template <typename T, typename Open>
void correlate_many(int64_t channels, const Band& band, const BandTables& tables, const T* gradient,
                    int64_t channel_stride, const Compute<T>* copy, Compute<T>* scratch, const Open& open) {
  const int64_t columns = band.footprint.columns.kernel, channel_size = band.size();
  for_each_vector<T>(
      band, tables,
      [&](auto pair, int64_t pixel, int64_t second_pixel, int64_t offset, const int64_t* column_offsets, auto lanes)
          ALWAYS_INLINE_LAMBDA {
            constexpr bool kPair = decltype(pair)::value;
            auto sink = open(pixel, lanes, 0), second_sink = open(kPair ? second_pixel : pixel, lanes, 1);
            for (int64_t c = 0; c < channels; ++c) {
              const T* from = gradient + c * channel_stride;
              store(scratch + 2 * c * kLanes<T>, sink.scale(load(from + pixel, lanes)));
              if constexpr (kPair) {
                store(scratch + (2 * c + 1) * kLanes<T>, second_sink.scale(load(from + second_pixel, lanes)));
              }
            }
            for_each_tap_row<kPair>(
                band.footprint.rows.kernel, [&](auto first, auto second, int64_t i) ALWAYS_INLINE_LAMBDA {
                  for (int64_t j = 0; j < columns; ++j) {
                    const Compute<T>* values = copy + offset + i * band.tap_stride + column_offsets[j];
                    Vector<T> sum = {}, second_sum = {};
                    for (int64_t c = 0; c < channels; ++c) {
                      Vector<T> value = load(values + c * channel_size);
                      if constexpr (first.value && second.value) keep_in_register(value);
                      if constexpr (first.value) sum += load(scratch + 2 * c * kLanes<T>) * value;
                      if constexpr (second.value) second_sum += load(scratch + (2 * c + 1) * kLanes<T>) * value;
                    }
                    if constexpr (first.value) sink.add(i * columns + j, sum);
                    if constexpr (second.value) second_sink.add((i - 1) * columns + j, second_sum);
                  }
                });
            sink.finish();
            if constexpr (kPair) second_sink.finish();
          });
}

template <typename T, typename Open>
void correlate_channels(const Aggregation& problem, const AggregationTask& task, const T* grad_output, const T* value,
                        const Open& open) {
  const Band band(problem.footprint, task.row_begin, task.row_end, kLanes<T>);
  const BandTables tables(band);
  const int64_t channels = problem.sharing(task.weight_channel), step = problem.channel_step();
  const Scratch<Compute<T>> copy(channels * band.size() + kLanes<T>);
  value += task.value_map(problem), grad_output += task.output_map(problem);
  for (int64_t c = 0; c < channels; ++c) {
    copy_band(band, tables, value + c * step * band.footprint.pixels(), copy.data() + c * band.size());
  }
  const int64_t channel_stride = step * band.footprint.output_pixels();
  if (channels == 8) {
    correlate<8>(band, tables, grad_output, channel_stride, copy.data(), open);
  } else if (channels == 2) {
    correlate<2>(band, tables, grad_output, channel_stride, copy.data(), open);
  } else if (channels == 1) {
    correlate<1>(band, tables, grad_output, channel_stride, copy.data(), open);
  } else {
    const Scratch<Compute<T>> scratch(2 * channels * kLanes<T>);
    correlate_many(channels, band, tables, grad_output, channel_stride, copy.data(), scratch.data(), open);
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_AGGREGATION_WEIGHT_GRADIENT_H
