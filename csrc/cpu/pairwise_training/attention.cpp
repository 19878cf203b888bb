// Bindings of pairwise attention in training, forward and backward.

#include "cpu/pairwise_training/call.h"
#include "cpu/pairwise_training/shared_passes.h"
#include "cpu/simd/dispatch.h"

#define SA_LAYERS_TARGET_INCLUDE "cpu/pairwise_training/attention.cpp"
#include "cpu/simd/foreach_target.h"

// Compiled once for each instruction set.
#include "cpu/pairwise_training/bands.h"

#if SA_LAYERS_ONCE

namespace sa_layers::cpu {
namespace {

std::tuple<Tensor, Tensor> forward(const Tensor& query, const Tensor& key, const Tensor& value,
                                   const std::vector<Tensor>& mapping_tensors, const PairArguments& given) {
  check_mapping_size(mapping_tensors);
  check_dims("value", value, 4);
  const PairGeometry geometry =
      make_geometry(query, key, given, value.size(3), mapping_tensors[4].size(0), mapping_tensors[7].size(0));
  const PairwiseTraining& problem = geometry.problem;
  check_pixels("value", value, query, {query.size(0), query.size(1), query.size(2), value.size(3)});
  const MappingInDouble mapping = read_mapping(mapping_tensors, problem);
  const std::vector<int64_t> shape{problem.batch, problem.height(), problem.width(), problem.value_channels};
  const Tensor output = torch::stable::empty(shape, query.scalar_type(), std::nullopt, query.device());
  const Tensor logsumexp = torch::stable::empty({shape[0], shape[1], shape[2], problem.weight_channels},
                                                compute_dtype(query), std::nullopt, query.device());
  dispatch_dtype("query", query, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    TrainingMaps<T> maps = maps_of<T>(query, key);
    maps.value = view<const T>(value), maps.output = view<T>(output);
    maps.logsumexp = mutable_data<Compute<T>>(logsumexp);
    FoldedParameters<Compute<T>> folded(geometry, sample_centers(problem, maps), mapping.scale1, mapping.shift1,
                                        mapping.center, true);
    folded.fold_layers(mapping, activate_offsets(geometry, mapping.scale1, mapping.shift1));
    share_tasks(problem.bands(), 1, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, pairwise_forward_bands, problem, folded.parameters, maps, begin, end);
    });
  });
  return {output, logsumexp};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& query,
                                                            const Tensor& key, const Tensor& value,
                                                            const Tensor& output, const Tensor& logsumexp,
                                                            const std::vector<Tensor>& mapping_tensors,
                                                            const PairArguments& given, const Tensor& grad_query,
                                                            const Tensor& grad_key, const Tensor& grad_value) {
  check_mapping_size(mapping_tensors);
  check_dims("value", value, 4);
  const PairGeometry geometry =
      make_geometry(query, key, given, value.size(3), mapping_tensors[4].size(0), mapping_tensors[7].size(0));
  const PairwiseTraining& problem = geometry.problem;
  const std::vector<int64_t> value_shape{query.size(0), query.size(1), query.size(2), value.size(3)};
  const std::vector<int64_t> shape{problem.batch, problem.height(), problem.width(), problem.value_channels};
  check_pixels("value", value, query, value_shape);
  check_pixels("grad_value", grad_value, query, value_shape);
  check_pixels("grad_query", grad_query, query, shape_of(query));
  check_pixels("grad_key", grad_key, query, shape_of(query));
  check_pixels("output", output, query, shape);
  check_pixels("grad_output", grad_output, query, shape);
  check_shape("logsumexp", logsumexp, {shape[0], shape[1], shape[2], problem.weight_channels});
  STD_TORCH_CHECK(logsumexp.scalar_type() == compute_dtype(query), "logsumexp must have the dtype ",
                  torch::headeronly::toString(compute_dtype(query)));
  const MappingInDouble mapping = read_mapping(mapping_tensors, problem);
  const int64_t features = problem.features(), hidden = problem.hidden, width = problem.padded_hidden(),
                positions = problem.positions, relation = problem.relation_channels();
  Doubles hidden_sums(hidden, 0.0), products(hidden * features, 0.0), weight2(problem.weight_channels * hidden, 0.0);
  FeatureGradients gradients;
  dispatch_dtype("query", query, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    TrainingMaps<T> maps = maps_of<T>(query, key);
    const Tensor logsumexps = as_contiguous(logsumexp);
    maps.value = view<const T>(value), maps.output = view<T>(output), maps.grad_output = view<const T>(grad_output);
    maps.grad_query = view<T>(grad_query), maps.grad_key = view<T>(grad_key), maps.grad_value = view<T>(grad_value);
    maps.with_moments = true;
    maps.logsumexp = const_cast<Compute<T>*>(data<Compute<T>>(logsumexps));
    FoldedParameters<Compute<T>> folded(geometry, sample_centers(problem, maps), mapping.scale1, mapping.shift1,
                                        mapping.center, true);
    const Doubles activations = activate_offsets(geometry, mapping.scale1, mapping.shift1);
    folded.fold_layers(mapping, activations);
    const Windows<T> windows(problem, query, true, &maps);
    const SumsLayout layout(problem, width, hidden, problem.padded_columns(), true);
    TotalSums sums(problem, layout);
    share_tasks(problem.bands(), 1, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, pairwise_backward_bands, problem, folded.parameters, maps, layout, sums.bands(), begin,
                         end);
    });
    add_windows<T>(problem, folded.parameters, maps, true);
    const double *const total = sums.add_up(), *const by_offset = total + layout.by_offset;
    gradients = feature_gradients(geometry, folded.relation_center, mapping.mean1, mapping.scale1, layout, total);
    Doubles positions_by_offset(problem.offsets() * positions, 0.0);
    for (int64_t o = 0; o < hidden; ++o) {
      for (int64_t i = 0; i < problem.offsets(); ++i) hidden_sums[o] += by_offset[i * width + o];
      for (int64_t d = 0; d < folded.features_in_columns(); ++d) {
        products[o * features + d] = total[layout.products + o * problem.padded_columns() + problem.column_of(d)] +
                                     hidden_sums[o] * (folded.center[d] - mapping.center[d]);
      }
      for (int64_t g = 0; g < problem.weight_channels; ++g) {
        weight2[g * hidden + o] = total[layout.weight2 + g * width + o];
      }
      for (int64_t i = 0; problem.by_offset && i < problem.offsets(); ++i) {
        for (int64_t p = 0; p < positions; ++p) {
          const double a = activations[i * positions + p];
          products[o * features + relation + p] += by_offset[i * width + o] * (a - mapping.center[relation + p]);
          const double weight = mapping.weight1[o * features + relation + p] * mapping.scale2[o];
          if (a > 0) positions_by_offset[i * positions + p] += weight * by_offset[i * width + o];
        }
      }
    }
    if (problem.by_offset) {
      add_offset_gradients(geometry, positions_by_offset, mapping.mean1, mapping.scale1, &gradients);
    }
  });
  return {float64(query, {hidden}, hidden_sums), float64(query, {hidden, features}, products),
          float64(query, {problem.weight_channels, hidden}, weight2), float64(query, {2, features}, gradients.features),
          float64(query, {2, positions, 3}, gradients.position)};
}

std::tuple<Tensor, Tensor> pairwise_training_forward(const Tensor& query, const Tensor& key, const Tensor& value,
                                                     const std::vector<Tensor>& mapping, SA_LAYERS_PAIR_PARAMETERS) {
  return forward(query, key, value, mapping, SA_LAYERS_PAIR_ARGUMENTS);
}
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> pairwise_training_backward(
    const Tensor& grad_output, const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& output,
    const Tensor& logsumexp, const std::vector<Tensor>& mapping, SA_LAYERS_PAIR_PARAMETERS, const Tensor& grad_query,
    const Tensor& grad_key, const Tensor& grad_value) {
  return backward(grad_output, query, key, value, output, logsumexp, mapping, SA_LAYERS_PAIR_ARGUMENTS, grad_query,
                  grad_key, grad_value);
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("pairwise_training_forward", TORCH_BOX(&sa_layers::cpu::pairwise_training_forward));
  library.impl("pairwise_training_backward", TORCH_BOX(&sa_layers::cpu::pairwise_training_backward));
}

#endif  // SA_LAYERS_ONCE
