// The passes of pairwise attention in training, band by band, and the rows of gradients that several bands add to.
#if defined(SA_LAYERS_CPU_PAIRWISE_TRAINING_BANDS_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PAIRWISE_TRAINING_BANDS_H
#undef SA_LAYERS_CPU_PAIRWISE_TRAINING_BANDS_H
#else
#define SA_LAYERS_CPU_PAIRWISE_TRAINING_BANDS_H
#endif

#include "cpu/pairwise_training/maps.h"
#include "cpu/pairwise_training/rows.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Calls body(row) for the output rows of a band, whose pairs and queries are then in the workspace.
template <typename T, typename Body>
ALWAYS_INLINE void for_each_row(PairWorkspace<Compute<T>>& at, const Band& band, const TrainingMaps<T>& maps,
                                const Body& body) {
  load_keys<T>(at, band, maps.key);
  at.pairs.start_band(band);
  for (int64_t row = band.begin; row < band.end; ++row) {
    at.pairs.move_to(row);
    load_queries<T>(at, band, row, maps.query);
    body(row);
  }
}

template <typename T>
void pairwise_sample_channels(const PairwiseTraining& problem, const TrainingMaps<T>& maps, double* query, double* key,
                              int64_t* count) {
  sample_channels<T>(problem, maps.query, query, count);
  sample_channels<T>(problem, maps.key, key, count);
}

// The sum of the features of the pairs in the middle of a band, and their number.
template <typename T>
void pairwise_sample_features(const PairwiseTraining& problem, const PairParameters<Compute<T>>& parameters,
                              const TrainingMaps<T>& maps, int64_t band_index, double* sums, int64_t* count) {
  using C = Compute<T>;
  PairWorkspace<C> at(problem, parameters, 0);
  const Band band = problem.band(band_index);
  const int64_t middle = (band.begin + band.end) / 2;
  load_keys<T>(at, band, maps.key);
  at.pairs.start_band(band), at.pairs.move_to(middle);
  load_queries<T>(at, band, middle, maps.query);
  at.pairs.for_each_block([&](const PairBlock& block) {
    if (problem.width() / 2 < block.first_pixel || problem.width() / 2 >= block.end_pixel) return;
    relate(at, block, AnySize{problem.padded_columns()});
    for (int64_t r = 0; r < block.count; ++r) {
      for (int64_t c = 0; c < problem.columns(); ++c) sums[c] += at.features.data()[r * problem.padded_columns() + c];
    }
    *count += block.count;
  });
}

template <typename T>
void pairwise_statistics_bands(const PairwiseTraining& problem, const PairParameters<Compute<T>>& parameters,
                               const TrainingMaps<T>& maps, const SumsLayout& layout, double* sums, int64_t begin,
                               int64_t end) {
  using C = Compute<T>;
  PairWorkspace<C> at(problem, parameters, 0);
  BandSums<C> totals(problem, layout);
  for (int64_t i = begin; i < end; ++i) {
    totals.to = sums + i * layout.size;
    for_each_row<T>(at, problem.band(i), maps, [&](int64_t) {
      with_pair_sizes<C>(problem, [&](const auto& sizes) { statistics_of_row(at, totals, sizes); });
    });
    totals.flush();
  }
}

template <typename T>
void pairwise_moments_bands(const PairwiseTraining& problem, const PairParameters<Compute<T>>& parameters,
                            const TrainingMaps<T>& maps, const SumsLayout& layout, double* sums, int64_t begin,
                            int64_t end) {
  using C = Compute<T>;
  PairWorkspace<C> at(problem, parameters, 0);
  BandSums<C> totals(problem, layout);
  for (int64_t i = begin; i < end; ++i) {
    totals.to = sums + i * layout.size;
    for_each_row<T>(at, problem.band(i), maps, [&](int64_t) {
      with_pair_sizes<C>(problem, [&](const auto& sizes) { moments_of_row(at, totals, sizes); });
    });
    totals.flush();
  }
}

template <typename T>
void pairwise_forward_bands(const PairwiseTraining& problem, const PairParameters<Compute<T>>& parameters,
                            const TrainingMaps<T>& maps, int64_t begin, int64_t end) {
  using C = Compute<T>;
  PairWorkspace<C> at(problem, parameters, problem.padded_hidden());
  ValueWorkspace<C> values(problem, false);
  for (int64_t i = begin; i < end; ++i) {
    const Band band = problem.band(i);
    load_values<T>(problem, values, band, maps.value);
    for_each_row<T>(at, band, maps, [&](int64_t row) {
      T* const output = maps.output.row(band.image, row);
      values.output_row = values.output.data(), values.output_size = problem.padded_value();
      values.logsumexp_row =
          maps.logsumexp + (band.image * problem.height() + row) * problem.width() * problem.weight_channels;
      with_pair_sizes<C>(problem, [&](const auto& sizes) { forward_row(at, values, sizes); });
      store_gradients<T>(values.output_row, values.output_size, nullptr, problem.width(), problem.value_channels,
                         output, maps.output.strides.pixel, false);
    });
  }
}

// After a row: gradients of its queries, and sums over them.
template <typename T>
void finish_queries(const PairWorkspace<Compute<T>>& at, const Band& band, int64_t row, const TrainingMaps<T>& maps,
                    const SumsLayout& layout, double* sums) {
  using C = Compute<T>;
  const PairwiseTraining& problem = at.problem;
  const Axis &rows = problem.footprint.rows, &columns = problem.footprint.columns;
  const int64_t size = problem.map_columns(), first = row * rows.stride;
  const C* const query_sums = at.query_sums.data();
  if (!maps.accumulate && rows.stride * columns.stride > 1) {
    for (int64_t y = first; y < min(first + rows.stride, rows.size); ++y) {
      for (int64_t x = 0; x < columns.size; ++x) {
        clear(maps.grad_query.row(band.image, y) + x * maps.grad_query.strides.pixel, problem.channels);
      }
    }
  }
  store_gradients<T>(query_sums, size, at.parameters.query_factor, problem.width(), problem.channels,
                     maps.grad_query.row(band.image, first), columns.stride * maps.grad_query.strides.pixel,
                     maps.accumulate);
  if (problem.is_difference()) {
    for (int64_t c = 0; c < problem.columns(); c += kLanes<C>) {
      Vector<C> total = {};
      for (int64_t x = 0; x < problem.width(); ++x) total += load(query_sums + x * size + c);
      for (int64_t lane = 0; lane < kLanes<C>; ++lane) sums[layout.features + c + lane] += total[lane];
    }
    add_moments<T>(query_sums, size, maps.query.row(band.image, first), columns.stride * maps.query.strides.pixel,
                   at.parameters.query_center, problem.width(), problem.channels, sums + layout.query_moments);
  }
  if (problem.positions > 0 && !problem.by_offset) {
    add_position_moments(problem, at.parameters, query_sums + problem.map_first_position(), size, problem.width(),
                         columns.stride, first, sums + layout.position);
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

template <typename T>
void pairwise_backward_bands(const PairwiseTraining& problem, const PairParameters<Compute<T>>& parameters,
                             const TrainingMaps<T>& maps, const SumsLayout& layout, double* sums, int64_t begin,
                             int64_t end) {
  using C = Compute<T>;
  PairWorkspace<C> at(problem, parameters, problem.padded_hidden());
  ValueWorkspace<C> values(problem, true);
  const Scratch<C> hidden_gradients(RowPairs::max_block_rows(problem) * problem.padded_hidden());
  clear(hidden_gradients.data(), RowPairs::max_block_rows(problem) * problem.padded_hidden());
  BandSums<C> totals(problem, layout);
  for (int64_t i = begin; i < end; ++i) {
    const Band band = problem.band(i);
    totals.to = sums + i * layout.size;
    start_key_sums<T>(at);
    clear(values.value_sums.data(), problem.window_pixels() * problem.padded_value());
    load_values<T>(problem, values, band, maps.value);
    for_each_row<T>(at, band, maps, [&](int64_t row) {
      const int64_t width = problem.width(), channels = problem.value_channels;
      values.output_row =
          const_cast<C*>(read_row(static_cast<const T*>(maps.output.row(band.image, row)), maps.output.strides.pixel,
                                  width, channels, values.output.data(), &values.output_size));
      values.grad_row = read_row(maps.grad_output.row(band.image, row), maps.grad_output.strides.pixel, width, channels,
                                 values.grad_output.data(), &values.grad_size);
      values.logsumexp_row = maps.logsumexp + (band.image * problem.height() + row) * width * problem.weight_channels;
      with_pair_sizes<C>(problem,
                         [&](const auto& sizes) { backward_row(at, values, hidden_gradients.data(), totals, sizes); });
      finish_queries<T>(at, band, row, maps, layout, totals.to);
    });
    totals.flush();
    finish_keys<T>(at, band, i, maps, values.value_sums.data(), layout, totals.to);
  }
}

template <typename T>
void pairwise_correction_bands(const PairwiseTraining& problem, const PairParameters<Compute<T>>& parameters,
                               const TrainingMaps<T>& maps, const SumsLayout& layout, double* sums, int64_t begin,
                               int64_t end) {
  using C = Compute<T>;
  PairWorkspace<C> at(problem, parameters, 0);
  BandSums<C> totals(problem, layout);
  for (int64_t i = begin; i < end; ++i) {
    const Band band = problem.band(i);
    totals.to = sums + i * layout.size;
    start_key_sums<T>(at);
    for_each_row<T>(at, band, maps, [&](int64_t row) {
      with_pair_sizes<C>(problem, [&](const auto& sizes) { correct_row(at, totals, sizes); });
      finish_queries<T>(at, band, row, maps, layout, totals.to);
    });
    totals.flush();
    finish_keys<T>(at, band, i, maps, nullptr, layout, totals.to);
  }
}

template <typename T>
void pairwise_scatter_bands(const PairwiseTraining& problem, const PairParameters<Compute<T>>& parameters,
                            const TrainingMaps<T>& maps, const SumsLayout& layout, double* sums, int64_t begin,
                            int64_t end) {
  using C = Compute<T>;
  PairWorkspace<C> at(problem, parameters, 0);
  for (int64_t i = begin; i < end; ++i) {
    const Band band = problem.band(i);
    start_key_sums<T>(at);
    for_each_row<T>(at, band, maps, [&](int64_t row) {
      with_pair_sizes<C>(problem, [&](const auto& sizes) { scatter_row(at, sizes); });
      finish_queries<T>(at, band, row, maps, layout, sums + i * layout.size);
    });
    finish_keys<T>(at, band, i, maps, nullptr, layout, sums + i * layout.size);
  }
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

#endif  // SA_LAYERS_CPU_PAIRWISE_TRAINING_BANDS_H
