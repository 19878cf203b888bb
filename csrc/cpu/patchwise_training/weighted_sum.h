// The weighted sum and its backward pass. Both work on slices of the weight channels, with the value's channels that
// use them; in the backward pass the sums and the gradients of a slice belong to its tasks.
#if defined(SA_LAYERS_CPU_PATCHWISE_TRAINING_WEIGHTED_SUM_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PATCHWISE_TRAINING_WEIGHTED_SUM_H
#undef SA_LAYERS_CPU_PATCHWISE_TRAINING_WEIGHTED_SUM_H
#else
#define SA_LAYERS_CPU_PATCHWISE_TRAINING_WEIGHTED_SUM_H
#endif

#include "cpu/patchwise_training/aggregation.h"
#include "cpu/patchwise_training/packing.h"
#include "cpu/patchwise_training/tiles.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Packs the bias and the weight of some slices.
template <typename T>
void pack_weighted_sum(const WeightedSumOperands<T>& operands, int64_t begin, int64_t end) {
  const WeightedSumProblem& problem = operands.problem;
  const Columns& columns = problem.columns;
  const int64_t hidden = problem.weight_channels;
  const auto bias = [&](int64_t tap, int64_t channel) { return operands.bias[problem.weight(tap, channel)]; };
  const auto weight = [&](int64_t tap, int64_t channel, int64_t n) {
    return operands.weight[problem.weight(tap, channel) * hidden + n];
  };
  for (int64_t slice = begin; slice < end; ++slice) {
    pack_row(columns, slice, bias, operands.packed_bias + slice * columns.slice_columns());
    pack_columns(columns, slice, hidden, weight, operands.packed_weight + slice * problem.matrix_size());
    if (operands.packed_outputs == nullptr) continue;
    pack_outputs(columns, slice, problem.outputs, weight,
                 operands.packed_outputs + slice * outputs_size(problem.columns, problem.outputs));
  }
}

// The values that a band of an image reads, for a slice of the weights: its rows of the map and a pixel of zeros.
template <typename C>
class ValueRegion {
 public:
  explicit ValueRegion(const WeightedSumProblem& problem)
      : problem_(problem),
        taps_(problem.columns.taps),
        pixel_size_(problem.value_vectors() * kLanes<C>),
        region_(problem.region_size()),
        sources_(taps_ * problem.bands.max_pixels + kLanes<float>) {}

  void list(const RowBand& band) { list_sources(problem_.footprint, band, pixel_size_, sources_.data(), 1); }

  template <typename T>
  void copy(const RowBand& band, const PixelMap<const T>& value, int64_t slice) {
    const int64_t width = problem_.footprint.columns.size, pixels = band.source_rows() * width;
    const int64_t first = (band.image * problem_.footprint.rows.size + band.source_begin) * width;
    const T* const from = value.data + first * value.pixel_stride;
    copy_pixels(from, value.pixel_stride, pixels, slice_of(problem_, slice), region_.data());
    fill_with_zeros(region_.data() + pixels * pixel_size_, pixel_size_);
  }

  // A tile with a panel of taps.
  AggregationTile<C> tile(int64_t panel, int64_t pixel, int64_t pixels, const C* weights) const {
    const Columns& columns = problem_.columns;
    const Axis& axis = problem_.footprint.columns;
    return {pixels,
            columns.taps_of(panel),
            columns.width,
            problem_.value_vectors(),
            problem_.neighbours_overlap() ? axis.kernel : 0,
            pixel % axis.output_size(),
            axis.output_size(),
            sources_.data() + pixel * taps_ + panel * columns.panel_taps,
            taps_,
            region_.data(),
            weights};
  }

  int64_t pixel_size() const { return pixel_size_; }

 private:
  const WeightedSumProblem& problem_;
  int64_t taps_, pixel_size_;
  Scratch<C> region_;
  Scratch<int32_t> sources_;
};

// Computes the tasks begin <= task < end.
template <typename T>
void weighted_sum(const WeightedSumOperands<T>& operands, const PixelMap<T>& output, int64_t begin, int64_t end) {
  using C = Compute<T>;
  const WeightedSumProblem& problem = operands.problem;
  const Columns& columns = problem.columns;
  const RowBands& bands = problem.bands;
  const int64_t hidden = problem.weight_channels, panel_columns = columns.panel_columns();
  ValueRegion<C> region(problem);
  ChannelTile<C> tile_of_h(hidden);
  const Scratch<C> weights(kTilePixels * kTileStride), sums(kTilePixels * region.pixel_size());

  const int64_t first = begin * bands.of_task, last = min(end * bands.of_task, bands.count);
  for (int64_t index = first; index < last; ++index) {
    const RowBand band = bands[index];
    if (bands.of_image > 1 || index == first) region.list(band);
    const int64_t pixels = band.rows() * problem.footprint.columns.output_size(), origin = problem.pixel_of(band);
    for (int64_t slice = 0; slice < columns.slices; ++slice) {
      region.copy(band, operands.value, slice);
      const ChannelVectors channels = slice_of(problem, slice);
      const C *const matrix = operands.packed_weight + slice * problem.matrix_size(), *const bias =
                                                                                          operands.packed_bias +
                                                                                          slice *
                                                                                              columns.slice_columns();
      for_each_tile(pixels, [&](int64_t pixel, int64_t count) {
        tile_of_h.fill(operands.z + (origin + pixel) * hidden, count, operands.scale, operands.shift);
        fill_with_zeros(sums.data(), count * region.pixel_size());
        for (int64_t panel = 0; panel < columns.panels; ++panel) {
          const int64_t column = panel * panel_columns;
          tile_of_h.multiply_by(matrix + column * hidden, bias + column, count, columns.vectors_of(panel),
                                weights.data());
          sum_values(region.tile(panel, pixel, count, weights.data()), sums.data());
        }
        const C* const from = sums.data();
        store_pixels(&from, 1, count, channels, output.data + (origin + pixel) * output.pixel_stride,
                     output.pixel_stride);
      });
    }
  }
}

// The gradient of the output for some pixels and channels: the map itself, or a copy where channels do not fill vectors
// or have another dtype.
template <typename T>
OutputGradient<Compute<T>> gradient_of_output(const PixelMap<const T>& map, int64_t pixel, int64_t pixels,
                                              const ChannelVectors& channels, Compute<T>* copy) {
  const T* const data = map.data + pixel * map.pixel_stride;
  if constexpr (sizeof(T) == sizeof(Compute<T>)) {
    if (channels.full_vectors(kLanes<T>) == channels.vectors) {
      return {data + channels.begin, map.pixel_stride, channels.step};
    }
  }
  copy_pixels(data, map.pixel_stride, pixels, channels, copy);
  return {copy, channels.vectors * kLanes<T>, kLanes<T>};
}

// Computes the tasks begin <= task < end: the bands of a task, for each slice.
template <typename T>
void weighted_sum_backward(const WeightedSumOperands<T>& operands, const WeightedSumGradients<T>& gradients,
                           int64_t begin, int64_t end) {
  using C = Compute<T>;
  const WeightedSumProblem& problem = operands.problem;
  const Columns& columns = problem.columns;
  const RowBands& bands = problem.bands;
  const int64_t hidden = problem.weight_channels, slice_columns = columns.slice_columns();
  const int64_t panel_columns = columns.panel_columns(), output_stride = problem.outputs.size();
  const int64_t panel_size = outputs_size(problem.columns, problem.outputs) / columns.panels;
  const int64_t region_size = problem.region_size(), all_pixels = problem.batch * problem.footprint.output_pixels();
  const int64_t sums_size = problem.sums_size();
  ValueRegion<C> region(problem);
  ChannelTile<C> tile_of_h(hidden);
  const Scratch<C> weights(kTilePixels * kTileStride), grad_weights(kTilePixels * kTileStride);
  const Scratch<C> copied_gradient(bands.max_pixels * region.pixel_size()),
      grad_hidden(bands.max_pixels * output_stride);
  const Scratch<C> region_gradients(region_size);

  for (int64_t task = begin; task < end; ++task) {
    const int64_t slice = task / bands.tasks(), first = task % bands.tasks() * bands.of_task;
    const ChannelVectors channels = slice_of(problem, slice);
    C *const sums = gradients.sums + task * sums_size, *const totals = sums + slice_columns * hidden;
    fill_with_zeros(sums, sums_size);
    for (int64_t index = first; index < min(first + bands.of_task, bands.count); ++index) {
      const RowBand band = bands[index];
      if (bands.of_image > 1 || index == first) region.list(band);
      region.copy(band, operands.value, slice);
      fill_with_zeros(region_gradients.data(), region_size);
      const int64_t pixels = band.rows() * problem.footprint.columns.output_size(), origin = problem.pixel_of(band);
      const OutputGradient<C> grad_output =
          gradient_of_output(gradients.output, origin, pixels, channels, copied_gradient.data());
      fill_with_zeros(grad_hidden.data(), pixels * output_stride);
      for (int64_t panel = 0; panel < columns.panels; ++panel) {
        const int64_t column = slice * slice_columns + panel * panel_columns, vectors = columns.vectors_of(panel);
        for_each_tile(pixels, [&](int64_t pixel, int64_t count) {
          tile_of_h.fill(operands.z + (origin + pixel) * hidden, count, operands.scale, operands.shift);
          tile_of_h.multiply_by(operands.packed_weight + column * hidden, operands.packed_bias + column, count, vectors,
                                weights.data());
          if (columns.taps_of(panel) * columns.width % kLanes<C> != 0) {  // zeros after the last tap
            for (int64_t p = 0; p < count; ++p) {
              store(grad_weights.data() + p * kTileStride + (vectors - 1) * kLanes<C>, Vector<C>{});
            }
          }
          sum_gradients(region.tile(panel, pixel, count, weights.data()), grad_output.from(pixel, 0),
                        grad_weights.data(), region_gradients.data());
          C* const of_hidden = grad_hidden.data() + pixel * output_stride;
          const PixelProduct<C> product{grad_weights.data(),
                                        vectors * kLanes<C>,
                                        operands.packed_outputs + (slice * columns.panels + panel) * panel_size,
                                        panel_size / problem.outputs.vectors(),
                                        of_hidden,
                                        output_stride,
                                        of_hidden,
                                        output_stride};
          multiply_by_outputs(product, count, problem.outputs);
          const int64_t in_slice = panel * panel_columns;
          tile_of_h.add_products(grad_weights.data(), count, vectors, sums + in_slice * hidden, totals + in_slice);
        });
      }
      C* to = gradients.hidden + (slice * all_pixels + origin) * hidden;
      for (int64_t pixel = 0; pixel < pixels; ++pixel, to += hidden) {
        add_lanes(grad_hidden.data() + pixel * output_stride, problem.outputs, to);
      }
      store_band(problem, gradients.value, slice, index, region_gradients.data());
    }
  }
}

// Adds the sums of all tasks for the vectors begin <= v < end of columns, counted through all slices: those of the
// weight, (Cw * taps, Cw), and of the bias, (Cw * taps,).
template <typename T>
void add_weighted_sums(const WeightedSumOperands<T>& operands, const Compute<T>* sums, double* grad_weight,
                       double* grad_bias, int64_t begin, int64_t end) {
  constexpr int64_t lanes = kLanes<T>;
  const WeightedSumProblem& problem = operands.problem;
  const Columns& columns = problem.columns;
  const int64_t hidden = problem.weight_channels, tasks = problem.bands.tasks(), size = problem.sums_size();
  const Scratch<double> total(hidden * lanes), bias(lanes);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t slice = i / columns.vectors(), vector = i % columns.vectors();
    const int64_t panel = vector / columns.panel_vectors, in_panel = vector % columns.panel_vectors * lanes;
    const Compute<T>* const of_slice = sums + slice * tasks * size;
    add_tasks(of_slice + vector * hidden * lanes, hidden, tasks, size, total.data());
    add_tasks(of_slice + columns.slice_columns() * hidden + vector * lanes, 1, tasks, size, bias.data());
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const int64_t tap = (in_panel + lane) / columns.width, channel = (in_panel + lane) % columns.width;
      if (tap >= columns.taps_of(panel) || channel >= columns.slice_channels(slice)) continue;
      const int64_t weight = problem.weight(panel * columns.panel_taps + tap, slice * columns.width + channel);
      grad_bias[weight] = bias.data()[lane];
      for (int64_t n = 0; n < hidden; ++n) grad_weight[weight * hidden + n] = total.data()[n * lanes + lane];
    }
  }
}

// to = the sum of the slices, for the elements begin <= i < end of each.
template <typename T>
void add_slices(const Compute<T>* slices, int64_t count, int64_t size, Compute<T>* to, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    Compute<T> sum = slices[i];
    for (int64_t slice = 1; slice < count; ++slice) sum += slices[slice * size + i];
    to[i] = sum;
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PATCHWISE_TRAINING_WEIGHTED_SUM_H
