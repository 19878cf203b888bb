// The passes of pairwise attention in training, band by band.
#if defined(SA_LAYERS_CPU_PAIRWISE_TRAINING_BANDS_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PAIRWISE_TRAINING_BANDS_H
#undef SA_LAYERS_CPU_PAIRWISE_TRAINING_BANDS_H
#else
#define SA_LAYERS_CPU_PAIRWISE_TRAINING_BANDS_H
#endif

#include "cpu/pairwise_training/gradients.h"
#include "cpu/pairwise_training/moments.h"
#include "cpu/pairwise_training/packed_rows.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Calls body(row) for the output rows of a band, whose pairs and queries are then in the workspace.
template <typename T, typename Body>
ALWAYS_INLINE void for_each_row(PairWorkspace<Compute<T>>& at, const Band& band, const TrainingMaps<T>& maps,
                                const Body& body) {
  load_keys<T>(at, band, maps.key);
  at.pairs.start_band(band);
  at.packed.start_band(band, at.keys.data(), at.problem.map_columns());
  for (int64_t row = band.begin; row < band.end; ++row) {
    at.pairs.move_to(row);
    load_queries<T>(at, band, row, maps.query);
    at.packed.start_row(row, at.queries.data(), at.problem.map_columns());
    at.pairs.skip(at.packed.first, at.packed.last);
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
  PairWorkspace<C> at(problem, parameters, 0, false);
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

// Sums over the pairs of bands, of which body(workspace, sums, sizes) adds those of a row's pairs, and
// packed(workspace) those of its packed pixels.
template <typename T, typename Packed, typename Body>
ALWAYS_INLINE void sum_bands(const PairwiseTraining& problem, const PairParameters<Compute<T>>& parameters,
                             const TrainingMaps<T>& maps, const SumsLayout& layout, double* sums, int64_t begin,
                             int64_t end, const Packed& packed, const Body& body) {
  using C = Compute<T>;
  PairWorkspace<C> at(problem, parameters, 0, packs_relation<C>(problem));
  BandSums<C> totals(problem, layout);
  for (int64_t i = begin; i < end; ++i) {
    totals.to = sums + i * layout.size;
    clear(totals.to, layout.size);
    for_each_row<T>(at, problem.band(i), maps, [&](int64_t) {
      if constexpr (kPacksPixels<C>) packed(at, totals.to);
      with_pair_sizes<C>(problem, [&](const auto& sizes) { body(at, totals, sizes); });
    });
    totals.flush();
  }
}

template <typename T>
void pairwise_statistics_bands(const PairwiseTraining& problem, const PairParameters<Compute<T>>& parameters,
                               const TrainingMaps<T>& maps, const SumsLayout& layout, double* sums, int64_t begin,
                               int64_t end) {
  sum_bands(
      problem, parameters, maps, layout, sums, begin, end,
      [&](const auto& at, double* to) { packed_statistics(at, layout, to); },
      [](const auto& at, auto& totals, const auto& sizes) { statistics_of_row(at, totals, sizes); });
}

template <typename T>
void pairwise_moments_bands(const PairwiseTraining& problem, const PairParameters<Compute<T>>& parameters,
                            const TrainingMaps<T>& maps, const SumsLayout& layout, double* sums, int64_t begin,
                            int64_t end) {
  sum_bands(
      problem, parameters, maps, layout, sums, begin, end,
      [&](const auto& at, double* to) { packed_moments(at, layout, to); },
      [](const auto& at, auto& totals, const auto& sizes) { moments_of_row(at, totals, sizes); });
}

template <typename T>
void pairwise_forward_bands(const PairwiseTraining& problem, const PairParameters<Compute<T>>& parameters,
                            const TrainingMaps<T>& maps, int64_t begin, int64_t end) {
  using C = Compute<T>;
  PairWorkspace<C> at(problem, parameters, problem.padded_hidden(), packs_mapping<C>(problem));
  ValueWorkspace<C> values(problem, false);
  for (int64_t i = begin; i < end; ++i) {
    const Band band = problem.band(i);
    load_values<T>(problem, values, band, maps.value);
    for_each_row<T>(at, band, maps, [&](int64_t row) {
      T* const output = maps.output.row(band.image, row);
      const bool in_place = row_to_write(output, problem.value_channels, &values.output_row);
      if (!in_place) values.output_row = values.output.data();
      values.output_size = in_place ? maps.output.strides.pixel : problem.padded_value();
      values.logsumexp_row =
          maps.logsumexp + (band.image * problem.height() + row) * problem.width() * problem.weight_channels;
      if constexpr (kPacksPixels<C>) packed_forward(at, values);
      with_pair_sizes<C>(problem, [&](const auto& sizes) { forward_row(at, values, sizes); });
      if (in_place) return;
      store_gradients<T>(values.output_row, values.output_size, nullptr, problem.width(), problem.value_channels,
                         output, maps.output.strides.pixel, false);
    });
  }
}

template <typename T>
void pairwise_backward_bands(const PairwiseTraining& problem, const PairParameters<Compute<T>>& parameters,
                             const TrainingMaps<T>& maps, const SumsLayout& layout, double* sums, int64_t begin,
                             int64_t end) {
  using C = Compute<T>;
  PairWorkspace<C> at(problem, parameters, problem.padded_hidden(), packs_mapping<C>(problem));
  ValueWorkspace<C> values(problem, true);
  const Scratch<C> hidden_gradients(RowPairs::max_block_rows(problem) * problem.padded_hidden());
  clear(hidden_gradients.data(), RowPairs::max_block_rows(problem) * problem.padded_hidden());
  BandSums<C> totals(problem, layout);
  for (int64_t i = begin; i < end; ++i) {
    const Band band = problem.band(i);
    totals.to = sums + i * layout.size;
    clear(totals.to, layout.size);
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
      if constexpr (kPacksPixels<C>) packed_backward(at, values, layout, totals.to);
      with_pair_sizes<C>(problem,
                         [&](const auto& sizes) { backward_row(at, values, hidden_gradients.data(), totals, sizes); });
      finish_queries<T>(at, band, row, maps, layout, totals.to);
    });
    totals.flush();
    at.packed.finish_band(at.key_sums.data(), problem.map_columns());
    finish_keys<T>(at, band, i, maps, values.value_sums.data(), layout, totals.to);
  }
}

template <typename T>
void pairwise_correction_bands(const PairwiseTraining& problem, const PairParameters<Compute<T>>& parameters,
                               const TrainingMaps<T>& maps, const SumsLayout& layout, double* sums, int64_t begin,
                               int64_t end) {
  using C = Compute<T>;
  PairWorkspace<C> at(problem, parameters, 0, packs_relation<C>(problem));
  BandSums<C> totals(problem, layout);
  for (int64_t i = begin; i < end; ++i) {
    const Band band = problem.band(i);
    totals.to = sums + i * layout.size;
    clear(totals.to, layout.size);
    start_key_sums<T>(at);
    for_each_row<T>(at, band, maps, [&](int64_t row) {
      if constexpr (kPacksPixels<C>) packed_correction(at, layout, totals.to);
      with_pair_sizes<C>(problem, [&](const auto& sizes) { correct_row(at, totals, sizes); });
      finish_queries<T>(at, band, row, maps, layout, totals.to);
    });
    totals.flush();
    at.packed.finish_band(at.key_sums.data(), problem.map_columns());
    finish_keys<T>(at, band, i, maps, nullptr, layout, totals.to);
  }
}

template <typename T>
void pairwise_scatter_bands(const PairwiseTraining& problem, const PairParameters<Compute<T>>& parameters,
                            const TrainingMaps<T>& maps, const SumsLayout& layout, double* sums, int64_t begin,
                            int64_t end) {
  using C = Compute<T>;
  PairWorkspace<C> at(problem, parameters, 0, packs_relation<C>(problem));
  for (int64_t i = begin; i < end; ++i) {
    const Band band = problem.band(i);
    double* const to = sums + i * layout.size;
    clear(to, layout.size);
    start_key_sums<T>(at);
    for_each_row<T>(at, band, maps, [&](int64_t row) {
      if constexpr (kPacksPixels<C>) packed_scatter(at);
      with_pair_sizes<C>(problem, [&](const auto& sizes) { scatter_row(at, sizes); });
      finish_queries<T>(at, band, row, maps, layout, to);
    });
    at.packed.finish_band(at.key_sums.data(), problem.map_columns());
    finish_keys<T>(at, band, i, maps, nullptr, layout, to);
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PAIRWISE_TRAINING_BANDS_H
