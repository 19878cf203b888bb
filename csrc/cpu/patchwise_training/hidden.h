// The hidden layer and its backward pass. The backward pass works on slices of the relation's channels: the weights,
// the sums and the gradients of a slice belong to its tasks.
#if defined(SA_LAYERS_CPU_PATCHWISE_TRAINING_HIDDEN_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PATCHWISE_TRAINING_HIDDEN_H
#undef SA_LAYERS_CPU_PATCHWISE_TRAINING_HIDDEN_H
#else
#define SA_LAYERS_CPU_PATCHWISE_TRAINING_HIDDEN_H
#endif

#include "cpu/patchwise_training/features.h"
#include "cpu/patchwise_training/packing.h"
#include "cpu/patchwise_training/tiles.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// The features of a tile of pixels in a panel of columns.
template <typename T>
FeatureTile<Compute<T>> tile_of(const HiddenOperands<T>& operands, const FeatureRegion<Compute<T>>& region,
                                int64_t slice, int64_t panel, int64_t pixel, int64_t pixels) {
  const Columns& columns = operands.problem.columns;
  const int64_t at = slice * columns.slice_columns() + panel * columns.panel_columns();
  return {pixels,
          columns.taps_of(panel),
          columns.width,
          columns.vectors_of(panel),
          columns.is_packed(),
          region.data(),
          region.sources() + panel * columns.panel_taps * region.tap_stride() + pixel,
          region.tap_stride(),
          operands.packed_scale + at,
          operands.packed_shift + at};
}

// Packs the norm and the weight of some slices, for the forward pass or the backward pass.
template <typename T>
void pack_hidden(const HiddenOperands<T>& operands, bool is_backward, int64_t begin, int64_t end) {
  const HiddenProblem& problem = operands.problem;
  const Columns& columns = problem.columns;
  const int64_t features = problem.features();
  for (int64_t slice = begin; slice < end; ++slice) {
    const auto feature = [&](const Compute<T>* from) {
      return [&problem, from](int64_t tap, int64_t channel) { return from[problem.feature(tap, channel)]; };
    };
    pack_row(columns, slice, feature(operands.scale), operands.packed_scale + slice * columns.slice_columns());
    pack_row(columns, slice, feature(operands.shift), operands.packed_shift + slice * columns.slice_columns());
    const auto weight = [&](int64_t tap, int64_t channel, int64_t n) {
      return operands.weight[n * features + problem.feature(tap, channel)];
    };
    if (is_backward) {
      const int64_t size = columns.slice_columns() * problem.weight_channels;
      pack_columns(columns, slice, problem.weight_channels, weight, operands.packed_weight + slice * size);
    } else {
      const int64_t size = outputs_size(columns, problem.outputs);
      pack_outputs(columns, slice, problem.outputs, weight, operands.packed_weight + slice * size);
    }
  }
}

// Packs the means of the features likewise.
template <typename T>
void pack_mean(const HiddenOperands<T>& operands, const Compute<T>* mean, Compute<T>* packed_mean, int64_t begin,
               int64_t end) {
  const HiddenProblem& problem = operands.problem;
  const auto of_feature = [&](int64_t tap, int64_t channel) { return mean[problem.feature(tap, channel)]; };
  for (int64_t slice = begin; slice < end; ++slice) {
    pack_row(problem.columns, slice, of_feature, packed_mean + slice * problem.columns.slice_columns());
  }
}

// Computes the tasks begin <= task < end; z is (N, Ho, Wo, Cw).
template <typename T>
void hidden(const HiddenOperands<T>& operands, Compute<T>* z, int64_t begin, int64_t end) {
  using C = Compute<T>;
  const HiddenProblem& problem = operands.problem;
  const Columns& columns = problem.columns;
  const RowBands& bands = problem.bands;
  const int64_t output_stride = problem.outputs.size();
  const int64_t matrix_size = outputs_size(columns, problem.outputs), panel_size = matrix_size / columns.panels;
  FeatureRegion<C> region(problem);
  const Scratch<C> gathered(kTilePixels * kTileStride), rows(kTilePixels * kTileStride);
  const Scratch<C> sums(bands.max_pixels * output_stride), zeros(output_stride);
  fill_with_zeros(zeros.data(), output_stride);

  const int64_t first = begin * bands.of_task, last = min(end * bands.of_task, bands.count);
  for (int64_t index = first; index < last; ++index) {
    const RowBand band = bands[index];
    if (bands.of_image > 1 || index == first) region.list(band);
    const int64_t width = problem.footprint.columns.output_size(), pixels = band.rows() * width;
    for (int64_t slice = 0; slice < columns.slices; ++slice) {
      region.copy(band, operands.query, operands.key, slice);
      for (int64_t panel = 0; panel < columns.panels; ++panel) {
        const bool is_first = slice == 0 && panel == 0;
        for_each_tile(pixels, [&](int64_t pixel, int64_t count) {
          const FeatureTile<C> tile = tile_of(operands, region, slice, panel, pixel, count);
          tile.activate(gathered.data(), rows.data());
          C* const out = sums.data() + pixel * output_stride;
          const PixelProduct<C> product{rows.data(),
                                        tile.vectors * kLanes<C>,
                                        operands.packed_weight + slice * matrix_size + panel * panel_size,
                                        panel_size / problem.outputs.vectors(),
                                        is_first ? zeros.data() : out,
                                        is_first ? 0 : output_stride,
                                        out,
                                        output_stride};
          multiply_by_outputs(product, count, problem.outputs);
        });
      }
    }
    C* to = z + (band.image * problem.footprint.output_pixels() + band.row_begin * width) * problem.weight_channels;
    for (int64_t pixel = 0; pixel < pixels; ++pixel, to += problem.weight_channels) {
      add_lanes(sums.data() + pixel * output_stride, problem.outputs, to);
    }
  }
}

// Computes the tasks begin <= task < end: the bands of a task, for each slice.
template <typename T>
void hidden_backward(const HiddenOperands<T>& operands, const HiddenGradients<T>& gradients, int64_t begin,
                     int64_t end) {
  using C = Compute<T>;
  const HiddenProblem& problem = operands.problem;
  const Columns& columns = problem.columns;
  const RowBands& bands = problem.bands;
  const int64_t hidden = problem.weight_channels, slice_columns = columns.slice_columns();
  const int64_t region_size = problem.region_size(), sums_size = problem.sums_size();
  FeatureRegion<C> region(problem);
  ChannelTile<C> tile_of_z(hidden);
  const Scratch<C> gathered(kTilePixels * kTileStride), rows(kTilePixels * kTileStride), zeros(kTileStride);
  const Scratch<C> region_gradients(region_size);
  fill_with_zeros(zeros.data(), kTileStride);

  for (int64_t task = begin; task < end; ++task) {
    const int64_t slice = task / bands.tasks(), first = task % bands.tasks() * bands.of_task;
    C* const sums = gradients.sums + task * sums_size;
    fill_with_zeros(sums, sums_size);
    for (int64_t index = first; index < min(first + bands.of_task, bands.count); ++index) {
      const RowBand band = bands[index];
      if (bands.of_image > 1 || index == first) region.list(band);
      region.copy(band, operands.query, operands.key, slice);
      fill_with_zeros(region_gradients.data(), region_size);
      const int64_t width = problem.footprint.columns.output_size(), pixels = band.rows() * width;
      const C* const grad_z =
          gradients.grad_z + (band.image * problem.footprint.output_pixels() + band.row_begin * width) * hidden;
      for (int64_t panel = 0; panel < columns.panels; ++panel) {
        const int64_t column = panel * columns.panel_columns();
        for_each_tile(pixels, [&](int64_t pixel, int64_t count) {
          const FeatureTile<C> tile = tile_of(operands, region, slice, panel, pixel, count);
          tile_of_z.fill(grad_z + pixel * hidden, count);
          tile.activate(gathered.data(), rows.data());
          tile_of_z.add_products(rows.data(), count, tile.vectors, sums + column * hidden, nullptr);
          const C* const matrix = operands.packed_weight + (slice * slice_columns + column) * hidden;
          const C* const mean = gradients.packed_mean + slice * slice_columns + column;
          C *const totals = sums + slice_columns * hidden + column, *const moments = totals + slice_columns;
          if (columns.is_packed()) {
            tile_of_z.multiply_by(matrix, zeros.data(), count, tile.vectors, rows.data());
            tile.scatter(gathered.data(), mean, rows.data(), totals, moments, region_gradients.data());
          } else {
            tile_of_z.for_each_product(
                matrix, zeros.data(), rows.data(), [&](const PixelProduct<C>& product, bool is_last) {
                  if (!is_last) return multiply(product, count, tile.vectors);
                  tile.multiply_and_scatter(product, mean, totals, moments, region_gradients.data());
                });
          }
        });
      }
      region.store_query(band, region_gradients.data(), slice, gradients.query);
      store_band(problem, gradients.key, slice, index, region_gradients.data());
    }
  }
}

// Adds the sums of all tasks for the rows begin <= row < end, counted through all slices: first those of the weight,
// (Cw, F), then totals and moments, (2, F).
template <typename T>
void add_hidden_sums(const HiddenOperands<T>& operands, const Compute<T>* sums, double* grad_weight, double* features,
                     int64_t begin, int64_t end) {
  constexpr int64_t lanes = kLanes<T>;
  const HiddenProblem& problem = operands.problem;
  const Columns& columns = problem.columns;
  const int64_t hidden = problem.weight_channels, tasks = problem.bands.tasks(), size = problem.sums_size();
  const Scratch<double> total(columns.slice_columns());
  for (int64_t i = begin; i < end; ++i) {
    const int64_t slice = i / (hidden + 2), row = i % (hidden + 2);
    const Compute<T>* const of_slice = sums + slice * tasks * size;
    double* to = grad_weight + row * problem.features();
    if (row < hidden) {
      for (int64_t v = 0; v < columns.vectors(); ++v) {
        add_tasks(of_slice + (v * hidden + row) * lanes, 1, tasks, size, total.data() + v * lanes);
      }
    } else {
      add_tasks(of_slice + columns.slice_columns() * row, columns.vectors(), tasks, size, total.data());
      to = features + (row - hidden) * problem.features();
    }
    for_each_channel_and_tap(columns, slice, [&](int64_t column, int64_t tap, int64_t channel) ALWAYS_INLINE_LAMBDA {
      to[problem.feature(tap, channel)] = total.data()[column];
    });
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PATCHWISE_TRAINING_HIDDEN_H
