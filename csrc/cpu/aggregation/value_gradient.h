// The gradient of the values. It is computed by gathering: every pixel of the map sums over the footprints that read
// it. Under 'clamp' it is computed by scattering instead. A task computes a whole map either way, so the order of every
// sum is fixed.
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

// The same under 'clamp', in the layout of a band's copy: adds to `copy` under every tap of every vector of output
// pixels. `gradient` holds maps that are `channel_stride` apart, and `copy` one band a channel and one more vector, all
// zeros.
template <int kChannels, typename T, typename Weights>
void scatter(const Band& band, const BandTables& tables, const Weights& weights, const Compute<T>* factors,
             const T* gradient, int64_t channel_stride, Compute<T>* copy) {
  const Axis &rows = band.footprint.rows, &columns = band.footprint.columns;
  const int64_t channel_size = band.size();
  for (int64_t row = band.row_begin; row < band.row_end; ++row) {
    for (int64_t vector = 0; vector < tables.vector_count; ++vector) {
      const auto add_taps = [&](auto lanes) ALWAYS_INLINE_LAMBDA {
        const int64_t column = tables[vector].column, pixel = row * columns.output_size() + column;
        Vector<T> gradients[kChannels];
        for (int c = 0; c < kChannels; ++c) {
          gradients[c] = load(gradient + c * channel_stride + pixel, lanes);
          if (factors != nullptr) gradients[c] *= load(factors + pixel, lanes);
        }
        Compute<T>* to = copy + band.row_offset(row) + column;
        for (int64_t i = 0; i < rows.kernel; ++i, to += band.tap_stride) {
          for (int64_t j = 0; j < columns.kernel; ++j) {
            const Vector<T> weight = weights(i * columns.kernel + j, pixel, lanes);
#pragma GCC unroll 8
            for (int c = 0; c < kChannels; ++c) {
              Compute<T>* sums = to + tables.offsets(vector)[j] + c * channel_size;
              store(sums, load(sums) + weight * gradients[c]);
            }
          }
        }
      };
      // Lanes that the vector before it has computed load zeros.
      const ColumnVector& which = tables[vector];
      if (which.begin == 0 && which.end == kLanes<T>) {
        add_taps(AllLanes{});
      } else {
        add_taps(SomeLanes{which.begin, which.end});
      }
    }
  }
}

template <typename T, typename Weights>
void scatter_channels(const Aggregation& problem, const AggregationTask& task, const Weights& weights,
                      const Compute<T>* factors, const T* grad_output, T* grad_value) {
  const Footprint& footprint = problem.footprint;
  const Band band(footprint, task.row_begin, task.row_end, kLanes<T>);
  const BandTables tables(band);
  const int64_t channels = problem.sharing(task.weight_channel), step = problem.channel_step();
  const int64_t pixels = footprint.pixels(), output_pixels = footprint.output_pixels();
  const int64_t copy_size = min(channels, 8) * band.size() + kLanes<T>;
  const Scratch<Compute<T>> copy(copy_size), sums(pixels);
  grad_output += task.output_map(problem), grad_value += task.value_map(problem);
  for_each_block(channels, [&](auto width, int64_t first) {
    for (int64_t i = 0; i < width.value * band.size() + kLanes<T>; ++i) copy.data()[i] = 0;
    scatter<width.value>(band, tables, weights, factors, grad_output + first * step * output_pixels,
                         step * output_pixels, copy.data());
    for (int c = 0; c < width.value; ++c) {
      for (int64_t i = 0; i < pixels; ++i) sums.data()[i] = 0;
      const Compute<T>* from = copy.data() + c * band.size();
      for (int64_t row = 0; row < band.padded_rows; ++row, from += band.row_size) {
        add_row(band, tables, from, sums.data() + band.map_row(row) * footprint.columns.size);
      }
      convert_run(sums.data(), grad_value + (first + c) * step * pixels, pixels);
    }
  });
}

// `factors`, (Ho * Wo) or null, multiply the gradients of every channel.
template <typename T, typename Weights>
void value_gradient_of_channels(const Aggregation& problem, const AggregationTask& task, const Weights& weights,
                                const Compute<T>* factors, const T* grad_output, T* grad_value) {
  const Footprint& footprint = problem.footprint;
  if (footprint.mode == Padding::kClamp) {
    return scatter_channels<T>(problem, task, weights, factors, grad_output, grad_value);
  }
  const Band band(footprint, task.row_begin, task.row_end, kLanes<T>);
  const BandTables tables(band);
  const PaddedGradients<T> layout(footprint);
  const int64_t channels = problem.sharing(task.weight_channel), block = min(channels, 8);
  const int64_t pixels = footprint.pixels(), output_pixels = footprint.output_pixels(), step = problem.channel_step();
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
