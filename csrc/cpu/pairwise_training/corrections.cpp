// Bindings of what the batch statistics of norms add to the gradients of pairwise attention.

#include "cpu/pairwise_training/call.h"
#include "cpu/pairwise_training/shared_passes.h"
#include "cpu/simd/dispatch.h"

#define SA_LAYERS_TARGET_INCLUDE "cpu/pairwise_training/corrections.cpp"
#include "cpu/simd/foreach_target.h"

// Compiled once for each instruction set.
#include "cpu/pairwise_training/bands.h"

#if SA_LAYERS_ONCE

namespace sa_layers::cpu {
namespace {

std::tuple<Tensor, Tensor> correction(const Tensor& query, const Tensor& key,
                                      const std::vector<Tensor>& mapping_tensors, const Tensor& matrix,
                                      const Tensor& offset, const PairArguments& given, const Tensor& grad_query,
                                      const Tensor& grad_key) {
  check_mapping_size(mapping_tensors);
  const PairGeometry geometry =
      make_geometry(query, key, given, 1, mapping_tensors[4].size(0), mapping_tensors[7].size(0));
  const PairwiseTraining& problem = geometry.problem;
  const int64_t features = problem.features(), positions = problem.positions, relation = problem.relation_channels();
  check_pixels("grad_query", grad_query, query, shape_of(query));
  check_pixels("grad_key", grad_key, query, shape_of(query));
  check_vector("matrix", matrix, {features, features});
  check_vector("offset", offset, {features});
  const MappingInDouble mapping = read_mapping(mapping_tensors, problem);
  const Doubles matrices = doubles(matrix), offsets = doubles(offset);
  FeatureGradients gradients;
  dispatch_dtype("query", query, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    TrainingMaps<T> maps = maps_of<T>(query, key);
    maps.grad_query = view<T>(grad_query), maps.grad_key = view<T>(grad_key), maps.accumulate = true,
    maps.with_moments = true;
    FoldedParameters<Compute<T>> folded(geometry, sample_centers(problem, maps), mapping.scale1, mapping.shift1,
                                        mapping.center, true);
    const Doubles activations = activate_offsets(geometry, mapping.scale1, mapping.shift1);
    // matrix * (a - center) + offset without the columns of the pairs, by offset.
    Doubles constants = offsets, summands;
    for (int64_t e = 0; e < features; ++e) {
      for (int64_t d = 0; d < folded.features_in_columns(); ++d) {
        constants[e] += matrices[e * features + d] * (folded.center[d] - mapping.center[d]);
      }
    }
    for (int64_t i = 0; i < problem.offsets(); ++i) {
      for (int64_t e = 0; e < features; ++e) {
        double sum = constants[e];
        for (int64_t d = folded.features_in_columns(); d < features; ++d) {
          sum += matrices[e * features + d] * (activations[i * positions + d - relation] - mapping.center[d]);
        }
        summands.push_back(sum);
      }
    }
    folded.fold_matrix(matrices, summands);
    const Windows<T> windows(problem, query, false, &maps);
    const int64_t width = problem.padded_columns();
    const SumsLayout layout(problem, width, 0, 0, false);
    TotalSums sums(problem, layout);
    share_tasks(problem.bands(), 1, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, pairwise_correction_bands, problem, folded.parameters, maps, layout, sums.bands(), begin,
                         end);
    });
    add_windows<T>(problem, folded.parameters, maps, false);
    const double* const total = sums.add_up();
    gradients = feature_gradients(geometry, folded.relation_center, mapping.mean1, mapping.scale1, layout, total);
    if (!problem.by_offset) return;
    Doubles by_offset(problem.offsets() * positions, 0.0);
    for (int64_t i = 0; i < problem.offsets(); ++i) {
      for (int64_t p = 0; p < positions; ++p) {
        if (!(activations[i * positions + p] > 0)) continue;
        double sum = geometry.counts[i] * summands[i * features + relation + p];
        for (int64_t d = 0; d < relation; ++d) {
          sum += matrices[(relation + p) * features + d] * total[layout.by_offset + i * width + problem.column_of(d)];
        }
        by_offset[i * positions + p] = sum;
      }
    }
    add_offset_gradients(geometry, by_offset, mapping.mean1, mapping.scale1, &gradients);
  });
  return {float64(query, {2, features}, gradients.features), float64(query, {2, positions, 3}, gradients.position)};
}

Tensor norm_backward(const Tensor& query, const Tensor& key, const Tensor& mean1, const Tensor& factors,
                     const PairArguments& given, const Tensor& grad_query, const Tensor& grad_key) {
  const PairGeometry geometry = make_geometry(query, key, given);
  const PairwiseTraining& problem = geometry.problem;
  const int64_t features = problem.features(), positions = problem.positions;
  check_pixels("grad_query", grad_query, query, shape_of(query));
  check_pixels("grad_key", grad_key, query, shape_of(query));
  check_vector("mean1", mean1, {features});
  check_vector("factors", factors, {2, features});
  const Doubles mean = doubles(mean1), both = doubles(factors);
  FeatureGradients gradients;
  dispatch_dtype("query", query, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    TrainingMaps<T> maps = maps_of<T>(query, key);
    maps.grad_query = view<T>(grad_query), maps.grad_key = view<T>(grad_key), maps.accumulate = true;
    const Doubles ones(features, 1.0);
    Doubles scale(features), shift(features);
    for (int64_t d = 0; d < features; ++d) {
      scale[d] = -both[features + d], shift[d] = both[features + d] * mean[d] - both[d];
    }
    FoldedParameters<Compute<T>> folded(geometry, sample_centers(problem, maps), scale, shift, Doubles(features, 0.0),
                                        false);
    folded.set_factors(ones);
    const Windows<T> windows(problem, query, false, &maps);
    const SumsLayout layout(problem, 0, 0, 0, false);
    TotalSums sums(problem, layout);
    share_tasks(problem.bands(), 1, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, pairwise_scatter_bands, problem, folded.parameters, maps, layout, sums.bands(), begin, end);
    });
    add_windows<T>(problem, folded.parameters, maps, false);
    gradients = feature_gradients(geometry, folded.relation_center, mean, ones, layout, sums.add_up());
    if (!problem.by_offset) return;
    Doubles by_offset(problem.offsets() * positions, 0.0);
    for (int64_t i = 0; i < problem.offsets() * positions; ++i) {
      const int64_t d = problem.relation_channels() + i % positions;
      by_offset[i] = geometry.counts[i / positions] * (scale[d] * geometry.features[i] + shift[d]);
    }
    add_offset_gradients(geometry, by_offset, mean, ones, &gradients);
  });
  return float64(query, {2, positions, 3}, gradients.position);
}

std::tuple<Tensor, Tensor> pairwise_training_correction(const Tensor& query, const Tensor& key,
                                                        const std::vector<Tensor>& mapping, const Tensor& matrix,
                                                        const Tensor& offset, SA_LAYERS_PAIR_PARAMETERS,
                                                        const Tensor& grad_query, const Tensor& grad_key) {
  return correction(query, key, mapping, matrix, offset, SA_LAYERS_PAIR_ARGUMENTS, grad_query, grad_key);
}
Tensor pairwise_training_norm_backward(const Tensor& query, const Tensor& key, const Tensor& mean1,
                                       const Tensor& factors, SA_LAYERS_PAIR_PARAMETERS, const Tensor& grad_query,
                                       const Tensor& grad_key) {
  return norm_backward(query, key, mean1, factors, SA_LAYERS_PAIR_ARGUMENTS, grad_query, grad_key);
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("pairwise_training_correction", TORCH_BOX(&sa_layers::cpu::pairwise_training_correction));
  library.impl("pairwise_training_norm_backward", TORCH_BOX(&sa_layers::cpu::pairwise_training_norm_backward));
}

#endif  // SA_LAYERS_ONCE
