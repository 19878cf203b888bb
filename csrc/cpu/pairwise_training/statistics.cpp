// Bindings of the statistics of the norms of pairwise attention in training.

#include "cpu/pairwise_training/call.h"
#include "cpu/pairwise_training/shared_passes.h"
#include "cpu/simd/dispatch.h"

#define SA_LAYERS_TARGET_INCLUDE "cpu/pairwise_training/statistics.cpp"
#include "cpu/simd/foreach_target.h"

// Compiled once for each instruction set.
#include "cpu/pairwise_training/bands.h"

#if SA_LAYERS_ONCE

namespace sa_layers::cpu {
namespace {

Tensor statistics(const Tensor& query, const Tensor& key, const PairArguments& given) {
  const PairGeometry geometry = make_geometry(query, key, given);
  const PairwiseTraining& problem = geometry.problem;
  const int64_t features = problem.features();
  Doubles result(2 * features, 0.0);
  dispatch_dtype("query", query, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const TrainingMaps<T> maps = maps_of<T>(query, key);
    const ChannelCenters centers = sample_centers(problem, maps);
    // Features about a centre: that of the channels, or for products the mean of some pairs.
    const Doubles ones(features, 1.0), zeros(features, 0.0);
    const FoldedParameters<Compute<T>> uncentered(geometry, centers, ones, zeros, zeros, false);
    Doubles center(features, 0.0), shift(features, 0.0);
    std::copy(uncentered.relation_center.begin(), uncentered.relation_center.end(), center.begin());
    if (!problem.is_difference() && problem.bands() > 0) {
      Doubles sample(problem.padded_columns(), 0.0);
      int64_t count = 0;
      SA_LAYERS_DISPATCH(T, pairwise_sample_features, problem, uncentered.parameters, maps, problem.bands() / 2,
                         sample.data(), &count);
      for (int64_t d = 0; d < problem.relation_channels(); ++d) {
        const double mean = static_cast<double>(static_cast<Compute<T>>(sample[d] / static_cast<double>(count)));
        center[d] = std::abs(mean) < 1e30 ? mean : 0.0;
      }
    }
    for (int64_t d = 0; d < features; ++d) shift[d] = -center[d];
    const FoldedParameters<Compute<T>> folded(geometry, centers, ones, shift, zeros, false);
    const SumsLayout layout(problem, 0, 2, problem.padded_columns(), false);
    TotalSums sums(problem, layout);
    share_tasks(problem.bands(), 1, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, pairwise_statistics_bands, problem, folded.parameters, maps, layout, sums.bands(), begin,
                         end);
    });
    const double* const total = sums.add_up() + layout.products;
    for (int64_t d = 0; d < folded.features_in_columns(); ++d) {
      const int64_t column = problem.column_of(d);
      const double mean = total[column] / problem.pairs();
      const double variance = total[problem.padded_columns() + column] / problem.pairs() - mean * mean;
      result[d] = center[d] + mean, result[features + d] = variance < 0 ? 0.0 : variance;
    }
  });
  for (int64_t p = 0; problem.by_offset && p < problem.positions; ++p) {
    double mean = 0, variance = 0;
    const auto feature = [&](int64_t offset) { return geometry.features[offset * problem.positions + p]; };
    for (int64_t i = 0; i < problem.offsets(); ++i) mean += geometry.counts[i] * feature(i) / problem.pairs();
    for (int64_t i = 0; i < problem.offsets(); ++i) {
      variance += geometry.counts[i] * (feature(i) - mean) * (feature(i) - mean) / problem.pairs();
    }
    result[problem.relation_channels() + p] = mean, result[features + problem.relation_channels() + p] = variance;
  }
  return float64(query, {2, features}, result);
}

std::tuple<Tensor, Tensor> moments(const Tensor& query, const Tensor& key, const Tensor& scale1, const Tensor& shift1,
                                   const PairArguments& given) {
  const PairGeometry geometry = make_geometry(query, key, given);
  const PairwiseTraining& problem = geometry.problem;
  const int64_t features = problem.features(), positions = problem.positions, relation = problem.relation_channels();
  check_vector("scale1", scale1, {features});
  check_vector("shift1", shift1, {features});
  const Doubles scale = doubles(scale1), shift = doubles(shift1);
  Doubles means(features, 0.0), covariance(features * features, 0.0);
  dispatch_dtype("query", query, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const TrainingMaps<T> maps = maps_of<T>(query, key);
    const ChannelCenters centers = sample_centers(problem, maps);
    // Moments about the mean of some pairs, so that they do not cancel.
    const FoldedParameters<Compute<T>> uncentered(geometry, centers, scale, shift, Doubles(features, 0.0), true);
    Doubles sample(problem.padded_columns(), 0.0), center(features, 0.0);
    int64_t count = 0;
    constexpr int64_t kSamples = 8;
    for (int64_t i = 0; i < problem.bands(); i += ceil_div(problem.bands(), kSamples)) {
      SA_LAYERS_DISPATCH(T, pairwise_sample_features, problem, uncentered.parameters, maps, i, sample.data(), &count);
    }
    for (int64_t d = 0; count > 0 && d < uncentered.features_in_columns(); ++d) {
      const double mean = sample[problem.column_of(d)] / static_cast<double>(count);
      if (std::abs(mean) < 1e30) center[d] = mean;
    }
    const FoldedParameters<Compute<T>> folded(geometry, centers, scale, shift, center, true);
    const int64_t width = problem.padded_columns(), columns = folded.features_in_columns();
    const SumsLayout layout(problem, width, problem.columns(), width, false);
    TotalSums sums(problem, layout);
    share_tasks(problem.bands(), 1, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, pairwise_moments_bands, problem, folded.parameters, maps, layout, sums.bands(), begin, end);
    });
    const double *const total = sums.add_up(), *const products = total + layout.products;
    const auto by_offset = [&](int64_t offset, int64_t d) {
      return total[layout.by_offset + offset * width + problem.column_of(d)];
    };
    Doubles about_center(columns, 0.0);
    for (int64_t d = 0; d < columns; ++d) {
      for (int64_t offset = 0; offset < problem.offsets(); ++offset) about_center[d] += by_offset(offset, d);
      about_center[d] /= problem.pairs();
      means[d] = folded.center[d] + about_center[d];
    }
    for (int64_t d = 0; d < columns; ++d) {
      for (int64_t e = 0; e < columns; ++e) {
        const int64_t first = problem.column_of(min(d, e)), second = problem.column_of(max(d, e));
        covariance[d * features + e] =
            products[first * width + second] / problem.pairs() - about_center[d] * about_center[e];
      }
    }
    if (!problem.by_offset) return;
    Doubles activations = activate_offsets(geometry, scale, shift);
    for (int64_t p = 0; p < positions; ++p) {
      for (int64_t i = 0; i < problem.offsets(); ++i) {
        means[relation + p] += geometry.counts[i] * activations[i * positions + p] / problem.pairs();
      }
      for (int64_t i = 0; i < problem.offsets(); ++i) activations[i * positions + p] -= means[relation + p];
    }
    for (int64_t i = 0; i < problem.offsets(); ++i) {
      for (int64_t p = 0; p < positions; ++p) {
        const double position = activations[i * positions + p] / problem.pairs();
        double* const row = covariance.data() + (relation + p) * features;
        for (int64_t d = 0; d < relation; ++d) {
          row[d] += position * by_offset(i, d);
          covariance[d * features + relation + p] = row[d];
        }
        for (int64_t other = 0; other < positions; ++other) {
          row[relation + other] += position * geometry.counts[i] * activations[i * positions + other];
        }
      }
    }
  });
  return {float64(query, {features}, means), float64(query, {features, features}, covariance)};
}

Tensor pairwise_training_statistics(const Tensor& query, const Tensor& key, SA_LAYERS_PAIR_PARAMETERS) {
  return statistics(query, key, SA_LAYERS_PAIR_ARGUMENTS);
}
std::tuple<Tensor, Tensor> pairwise_training_moments(const Tensor& query, const Tensor& key, const Tensor& scale1,
                                                     const Tensor& shift1, SA_LAYERS_PAIR_PARAMETERS) {
  return moments(query, key, scale1, shift1, SA_LAYERS_PAIR_ARGUMENTS);
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("pairwise_training_statistics", TORCH_BOX(&sa_layers::cpu::pairwise_training_statistics));
  library.impl("pairwise_training_moments", TORCH_BOX(&sa_layers::cpu::pairwise_training_moments));
}

#endif  // SA_LAYERS_ONCE
