// From the sums of a band's pairs to the gradients of query, key and value.
#if defined(SA_LAYERS_CPU_PAIRWISE_TRAINING_GRADIENTS_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PAIRWISE_TRAINING_GRADIENTS_H
#undef SA_LAYERS_CPU_PAIRWISE_TRAINING_GRADIENTS_H
#else
#define SA_LAYERS_CPU_PAIRWISE_TRAINING_GRADIENTS_H
#endif

#include "cpu/pairwise_training/maps.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// After a row: gradients of its queries, and sums over them.
template <typename T>
void finish_queries(const PairWorkspace<Compute<T>>& at, const Band& band, int64_t row, const TrainingMaps<T>& maps,
                    const SumsLayout& layout, double* sums) {
  using C = Compute<T>;
  const PairwiseTraining& problem = at.problem;
  const Axis &rows = problem.footprint.rows, &columns = problem.footprint.columns;
  const int64_t width = problem.width(), size = problem.map_columns(), first = row * rows.stride;
  const C* const query_sums = at.query_sums.data();
  if (!maps.accumulate && rows.stride * columns.stride > 1) {
    for (int64_t y = first; y < min(first + rows.stride, rows.size); ++y) {
      for (int64_t x = 0; x < columns.size; ++x) {
        clear(maps.grad_query.row(band.image, y) + x * maps.grad_query.strides.pixel, problem.channels);
      }
    }
  }
  store_gradients<T>(query_sums, size, at.parameters.query_factor, width, problem.channels,
                     maps.grad_query.row(band.image, first), columns.stride * maps.grad_query.strides.pixel,
                     maps.accumulate);
  if (problem.is_difference()) {
    for (int64_t c = 0; c < problem.columns(); c += kLanes<C>) {
      Vector<C> total = {};
      for (int64_t x = 0; x < width; ++x) total += load(query_sums + x * size + c);
      for (int64_t lane = 0; lane < kLanes<C>; ++lane) sums[layout.features + c + lane] += total[lane];
    }
    add_moments<T>(query_sums, size, maps.query.row(band.image, first), columns.stride * maps.query.strides.pixel,
                   at.parameters.query_center, width, problem.channels, sums + layout.query_moments);
  }
  if (problem.positions > 0 && !problem.by_offset) {
    add_position_moments(problem, at.parameters, query_sums + problem.map_first_position(), size, width, columns.stride,
                         first, sums + layout.position);
  }
}

// Writes a row of the key's gradients from sums over the neighbours.
template <typename T>
void store_key_row(const PairwiseTraining& problem, const PairParameters<Compute<T>>& parameters,
                   const TrainingMaps<T>& maps, int64_t image, int64_t y, const Compute<T>* sums) {
  store_gradients<T>(sums + problem.key_column(), problem.map_columns(), parameters.key_factor,
                     problem.footprint.columns.size, problem.channels, maps.grad_key.row(image, y),
                     maps.grad_key.strides.pixel, maps.accumulate);
}
template <typename T>
void store_value_row(const PairwiseTraining& problem, const TrainingMaps<T>& maps, int64_t image, int64_t y,
                     const Compute<T>* sums) {
  store_gradients<T>(sums, problem.padded_value(), nullptr, problem.footprint.columns.size, problem.value_channels,
                     maps.grad_value.row(image, y), maps.grad_value.strides.pixel, false);
}

// After a band: gradients of the rows that no other band reads, copies of the others' sums, and sums over keys.
template <typename T>
void finish_keys(const PairWorkspace<Compute<T>>& at, const Band& band, int64_t index, const TrainingMaps<T>& maps,
                 const Compute<T>* value_sums, const SumsLayout& layout, double* sums) {
  using C = Compute<T>;
  const PairwiseTraining& problem = at.problem;
  const int64_t width = problem.footprint.columns.size, size = problem.map_columns() * width,
                value_size = problem.padded_value() * width;
  const int64_t window = index * problem.max_window_rows();
  for (int64_t y = band.first_row; y < band.last_row; ++y) {
    const int64_t row = y - band.first_row;
    const C* const key_sums = at.key_sums.data() + row * size;
    int64_t first = 0;
    if (problem.readers(y, &first) == 1) {
      store_key_row<T>(problem, at.parameters, maps, band.image, y, key_sums);
      if (value_sums != nullptr) store_value_row<T>(problem, maps, band.image, y, value_sums + row * value_size);
    } else {
      convert_run(key_sums, maps.key_windows + (window + row) * size, size);
      if (value_sums != nullptr) {
        convert_run(value_sums + row * value_size, maps.value_windows + (window + row) * value_size, value_size);
      }
    }
    add_moments<T>(key_sums + problem.key_column(), problem.map_columns(), maps.key.row(band.image, y),
                   maps.key.strides.pixel, at.parameters.key_center, width, problem.channels,
                   sums + layout.key_moments);
    if (problem.positions > 0 && !problem.by_offset) {
      add_position_moments(problem, at.parameters, key_sums + problem.map_first_position(), problem.map_columns(),
                           width, 1, y, sums + layout.position + 3 * problem.positions);
    }
  }
  const C* const zero = at.key_sums.data() + (problem.window_pixels() - 1) * problem.map_columns();
  for (int64_t c = 0; c < problem.channels; ++c) {
    sums[layout.key_moments + c] -= static_cast<double>(zero[problem.key_column() + c]) * at.parameters.key_center[c];
  }
  if (problem.is_difference()) return;
  for (int64_t c = 0; c < problem.relation_channels(); ++c) sums[layout.features + c] += at.column_sums.data()[c];
  for (int64_t c = problem.first_position(); c < problem.columns(); ++c) {
    sums[layout.features + c] += sums[layout.position + 3 * (c - problem.first_position()) + 2];
  }
}

template <typename T>
void start_key_sums(const PairWorkspace<Compute<T>>& at) {
  clear(at.key_sums.data(), at.problem.window_pixels() * at.problem.map_columns());
  clear(at.column_sums.data(), at.problem.padded_columns());
}

// The rows of the maps, begin <= row < end through the batch, that none or several bands read: the sum of the windows,
// in the order of the bands.
template <typename T>
void pairwise_add_windows(const PairwiseTraining& problem, const PairParameters<Compute<T>>& parameters,
                          const TrainingMaps<T>& maps, bool with_values, int64_t begin, int64_t end) {
  using C = Compute<T>;
  const int64_t height = problem.footprint.rows.size, width = problem.footprint.columns.size;
  const int64_t size = problem.map_columns() * width, value_size = problem.padded_value() * width;
  const Scratch<C> key_row(size + kLanes<C>), value_row(value_size);
  const auto add = [&](const C* windows, int64_t row_size, int64_t window, const C* to_row, bool first) {
    C* const to = const_cast<C*>(to_row);
    const C* const from = windows + window * row_size;
    for (int64_t c = 0; c < row_size; c += kLanes<C>)
      store(to + c, first ? load(from + c) : load(to + c) + load(from + c));
  };
  for (int64_t i = begin; i < end; ++i) {
    const int64_t image = i / height, y = i % height;
    int64_t first = 0;
    const int64_t readers = problem.readers(y, &first);
    if (readers == 1) continue;
    if (readers == 0) clear(key_row.data(), size), clear(value_row.data(), value_size);
    for (int64_t reader = 0; reader < readers; ++reader) {
      const int64_t index = image * problem.bands_of_image() + first + reader;
      const int64_t window = index * problem.max_window_rows() + y - problem.band(index).first_row;
      add(maps.key_windows, size, window, key_row.data(), reader == 0);
      if (with_values) add(maps.value_windows, value_size, window, value_row.data(), reader == 0);
    }
    store_key_row<T>(problem, parameters, maps, image, y, key_row.data());
    if (with_values) store_value_row<T>(problem, maps, image, y, value_row.data());
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PAIRWISE_TRAINING_GRADIENTS_H
