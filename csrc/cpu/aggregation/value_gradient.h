// The gradient of the values. It is computed by gathering, so that each pixel is written by one task: every pixel of
// the map sums over the footprints that read it.
#if defined(SA_LAYERS_CPU_AGGREGATION_VALUE_GRADIENT_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_AGGREGATION_VALUE_GRADIENT_H
#undef SA_LAYERS_CPU_AGGREGATION_VALUE_GRADIENT_H
#else
#define SA_LAYERS_CPU_AGGREGATION_VALUE_GRADIENT_H
#endif

#include "cpu/aggregation/loops.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// The gradients of a block of channels. Each output row is padded with zeros, `margin` before it and `margin` plus one
// vector after it, so that columns beyond the border contribute zero.
template <typename T>
struct PaddedGradients {
  int64_t margin, row_size, channel_size;

  PaddedGradients(const Footprint& footprint)
      : margin(footprint.columns.reach() / footprint.columns.stride),
        row_size(footprint.columns.output_size() + 2 * margin + kLanes<T>),
        channel_size(footprint.rows.output_size() * row_size) {}

  // `factors`, one for each output pixel or null, multiply the gradients.
  void copy(const Footprint& footprint, const T* from, const Compute<T>* factors, Compute<T>* to) const {
    const int64_t width = footprint.columns.output_size();
    for (int64_t row = 0; row < footprint.rows.output_size(); ++row, from += width, to += row_size) {
      for (int64_t i = 0; i < margin; ++i) to[i] = 0;
      convert_run(from, to + margin, width);
      for (int64_t i = margin + width; i < row_size; ++i) to[i] = 0;
      if (factors == nullptr) continue;
      for (int64_t i = 0; i < width; ++i) to[margin + i] *= factors[i];
      factors += width;
    }
  }
};

// value(c, q) = sum over the t and p with source(t, p) = q of weight(t, p) * gradient(c, p). First come the sums of one
// padded row, or of a pair of rows that are one dilation apart and so use the same output rows; then they are added to
// the rows of the map that they repeat. The band is the whole map, and `maps` holds zeros.
template <int kChannels, typename T, typename Weights>
void transposed_gather(const Band& band, const BandTables& tables, const Weights& weights,
                       const PaddedGradients<T>& layout, const Compute<T>* gradients, Compute<T>* row_sums,
                       Compute<T>* maps, int64_t map_stride) {
  const Axis &rows = band.footprint.rows, &columns = band.footprint.columns;
  const int64_t height = rows.output_size(), width = columns.output_size(), sums_stride = band.row_size + kLanes<T>;

  const auto add_to_maps = [&](int64_t padded_row, const Compute<T>* sums) {
    const int64_t map_row = rows.pixel(padded_row, band.footprint.mode);
    if (map_row < 0) return;
    for (int c = 0; c < kChannels; ++c) {
      add_row(band, tables, sums + c * sums_stride, maps + c * map_stride + map_row * columns.size);
    }
  };

  for_each_pair<T>(0, band.padded_rows, rows.dilation, [&](auto pair, int64_t padded_row) ALWAYS_INLINE_LAMBDA {
    // In a pair, the later row uses under tap row i the output row that the earlier row uses under tap row i - 1.
    constexpr bool kPair = decltype(pair)::value;
    const int64_t later_row = padded_row + (kPair ? rows.dilation : 0);
    Compute<T>* const earlier_row_sums = row_sums + kChannels * sums_stride;
    for (int64_t phase = 0; phase < columns.stride; ++phase) {
      for (int64_t start = 0; start < band.phase_size; start += kLanes<T>) {
        Vector<T> sums[kChannels] = {}, earlier_sums[kChannels] = {};
        const auto add_column = [&](int64_t j, int64_t column, auto lanes) ALWAYS_INLINE_LAMBDA {
          for_each_tap_row<kPair>(rows.kernel, [&](auto later, auto earlier, int64_t i) ALWAYS_INLINE_LAMBDA {
            const int64_t distance = later_row - i * rows.dilation;
            if (distance < 0 || (rows.stride > 1 && distance % rows.stride != 0)) return;
            const int64_t row = rows.stride > 1 ? distance / rows.stride : distance, pixel = row * width + column;
            if (row >= height) return;
            const Compute<T>* values = gradients + row * layout.row_size + layout.margin + column;
            Vector<T> weight, earlier_weight;
            if constexpr (later.value) weight = weights(i * columns.kernel + j, pixel, lanes);
            if constexpr (earlier.value) earlier_weight = weights((i - 1) * columns.kernel + j, pixel, lanes);
#pragma GCC unroll 8
            for (int c = 0; c < kChannels; ++c) {
              Vector<T> gradient = load(values + c * layout.channel_size);
              if constexpr (later.value && earlier.value) keep_in_register(gradient);
              if constexpr (later.value) sums[c] += weight * gradient;
              if constexpr (earlier.value) earlier_sums[c] += earlier_weight * gradient;
            }
          });
        };
        for (int64_t j = 0; j < columns.kernel; ++j) {
          const int64_t column = start - tables.tap_shifts[j];
          const SomeLanes lanes{max(0, -column), min(kLanes<T>, width - column)};
          if (tables.tap_phases[j] != phase || lanes.begin >= lanes.end) continue;
          if (lanes.begin == 0 && lanes.end == kLanes<T>) {
            add_column(j, column, AllLanes{});
          } else {
            add_column(j, column, lanes);
          }
        }
        for (int c = 0; c < kChannels; ++c) {
          const int64_t at = c * sums_stride + phase * band.phase_size + start;
          store(row_sums + at, sums[c]);
          if constexpr (kPair) store(earlier_row_sums + at, earlier_sums[c]);
        }
      }
    }
    if constexpr (kPair) add_to_maps(padded_row, earlier_row_sums);
    add_to_maps(later_row, row_sums);
  });
}

// `factors`, (Ho * Wo) or null, multiply the gradients of every channel.
template <typename T, typename Weights>
void transposed_gather_channels(const Aggregation& problem, const AggregationTask& task, const Weights& weights,
                                const Compute<T>* factors, const T* grad_output, T* grad_value) {
  const Footprint& footprint = problem.footprint;
  const Band band(footprint, task.row_begin, task.row_end);
  const BandTables tables(band);
  const PaddedGradients<T> layout(footprint);
  const int64_t channels = problem.sharing(task.weight_channel), block = min(channels, 8);
  const int64_t pixels = footprint.pixels(), output_pixels = footprint.output_pixels(), step = problem.weight_channels;
  constexpr bool kInPlace = sizeof(T) == sizeof(Compute<T>);  // half precision is rounded once, at the end
  const Scratch<Compute<T>> gradients(block * layout.channel_size), sums(kInPlace ? 0 : block * pixels);
  const Scratch<Compute<T>> row_sums(2 * block * (band.row_size + kLanes<T>));
  grad_output += task.output_map(problem), grad_value += task.value_map(problem);
  for_each_block(channels, [&](auto width, int64_t first) {
    for (int c = 0; c < width.value; ++c) {
      const T* from = grad_output + (first + c) * step * output_pixels;
      layout.copy(footprint, from, factors, gradients.data() + c * layout.channel_size);
    }
    const auto gather_into = [&](Compute<T>* maps, int64_t map_stride) {
      for (int c = 0; c < width.value; ++c) {
        for (int64_t i = 0; i < pixels; ++i) maps[c * map_stride + i] = 0;
      }
      transposed_gather<width.value>(band, tables, weights, layout, gradients.data(), row_sums.data(), maps,
                                     map_stride);
    };
    T* const to = grad_value + first * step * pixels;
    if constexpr (kInPlace) {
      gather_into(to, step * pixels);
    } else {
      gather_into(sums.data(), pixels);
      for (int c = 0; c < width.value; ++c) convert_run(sums.data() + c * pixels, to + c * step * pixels, pixels);
    }
  });
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_AGGREGATION_VALUE_GRADIENT_H
