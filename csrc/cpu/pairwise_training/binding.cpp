// Bindings of the passes of pairwise attention in training.

#include <cmath>
#include <deque>
#include <tuple>

#include "cpu/pairwise_training/results.h"
#include "cpu/runtime/share_tasks.h"
#include "cpu/simd/dispatch.h"
#include "operands/attention.h"

#define SA_LAYERS_TARGET_INCLUDE "cpu/pairwise_training/binding.cpp"
#include "cpu/simd/foreach_target.h"

// Compiled once for each instruction set.
#include "cpu/pairwise_training/bands.h"

#if SA_LAYERS_ONCE

namespace sa_layers::cpu {
namespace {

// What describes the pairs in every schema, after the maps.
struct PairArguments {
  const OptionalTensor &query_position, &key_position;
  const Pair& position_size;
  const Pair& kernel_size;
  const std::string& relation;
  const Pair &stride, &dilation;
  const std::string& padding_mode;
};

// (N, H, W, C) with contiguous channels.
void check_pixels(const char* name, const Tensor& map, const Tensor& query, const std::vector<int64_t>& shape) {
  check_shape(name, map, shape);
  check_like(name, map, "query", query);
  STD_TORCH_CHECK(map.size(3) == 1 || map.stride(3) == 1, name, " must have contiguous channels");
}

void check_vector(const char* name, const Tensor& tensor, const std::vector<int64_t>& shape) {
  check_shape(name, tensor, shape);
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Double || tensor.scalar_type() == ScalarType::Float, name,
                  " must be float32 or float64, got ", torch::headeronly::toString(tensor.scalar_type()));
}

template <typename T>
MapView<T> view(const Tensor& map) {
  return {const_cast<T*>(data<std::remove_const_t<T>>(map)), {map.stride(0), map.stride(1), map.stride(2)}};
}

Tensor float64(const Tensor& like, const std::vector<int64_t>& shape, const Doubles& numbers) {
  const Tensor result = torch::stable::empty(shape, ScalarType::Double, std::nullopt, like.device());
  std::copy(numbers.begin(), numbers.end(), mutable_data<double>(result));
  return result;
}

std::deque<PairGeometry> make_geometry(const Tensor& query, const Tensor& key, const PairArguments& given,
                                       int64_t value_channels = 1, int64_t hidden = 1, int64_t weight_channels = 1) {
  check_dims("query", query, 4);
  check_pixels("query", query, query, shape_of(query));
  check_pixels("key", key, query, shape_of(query));
  STD_TORCH_CHECK(query.size(3) > 0 && value_channels > 0, "query and value must have at least one channel");
  check_positions(given.query_position, given.key_position, given.position_size, query, kMaxPositions);
  std::deque<PairGeometry> geometry;
  geometry.emplace_back(
      query, key, given.query_position, given.key_position, given.position_size,
      make_footprint(query.size(1), query.size(2), given.kernel_size, given.stride, given.dilation, given.padding_mode),
      parse_relation(given.relation), value_channels, hidden, weight_channels);
  return geometry;
}

template <typename T>
TrainingMaps<T> maps_of(const Tensor& query, const Tensor& key) {
  TrainingMaps<T> maps{};
  maps.query = view<const T>(query), maps.key = view<const T>(key);
  return maps;
}

template <typename T>
ChannelCenters sample_centers(const PairwiseTraining& problem, const TrainingMaps<T>& maps) {
  ChannelCenters centers{Doubles(problem.channels, 0.0), Doubles(problem.channels, 0.0)};
  int64_t count = 0;
  SA_LAYERS_DISPATCH(T, pairwise_sample_channels, problem, maps, centers.query.data(), centers.key.data(), &count);
  for (Doubles* const sums : {&centers.query, &centers.key}) {
    for (double& sum : *sums) {
      sum /= static_cast<double>(max(int64_t{1}, count));
      if (!(std::abs(sum) < 1e30)) sum = 0;  // an infinite key must not reach all pairs
    }
  }
  return centers;
}

MappingInDouble read_mapping(const std::vector<Tensor>& mapping, const PairwiseTraining& problem) {
  const int64_t features = problem.features(), hidden = problem.hidden, weights = problem.weight_channels;
  check_vector("scale1", mapping[0], {features});
  check_vector("shift1", mapping[1], {features});
  check_vector("mean1", mapping[2], {features});
  check_vector("center", mapping[3], {features});
  check_vector("weight1", mapping[4], {hidden, features});
  check_vector("scale2", mapping[5], {hidden});
  check_vector("shift2", mapping[6], {hidden});
  check_vector("weight2", mapping[7], {weights, hidden});
  return {doubles(mapping[0]), doubles(mapping[1]), doubles(mapping[2]), doubles(mapping[3]),
          doubles(mapping[4]), doubles(mapping[5]), doubles(mapping[6]), doubles(mapping[7])};
}
void check_mapping_size(const std::vector<Tensor>& mapping) {
  STD_TORCH_CHECK(mapping.size() == 8, "mapping must be a list of 8 tensors, got ", mapping.size());
  check_dims("weight1", mapping[4], 2);
  check_dims("weight2", mapping[7], 2);
  STD_TORCH_CHECK(mapping[4].size(0) > 0 && mapping[7].size(0) > 0, "weights must have at least one output, got 0");
}

// Windows in which bands leave sums of rows that other bands add to.
template <typename T>
class Windows {
 public:
  Windows(const PairwiseTraining& problem, const Tensor& query, bool with_values, TrainingMaps<T>* maps)
      : keys_(allocate(problem, query, problem.map_columns())),
        values_(allocate(problem, query, with_values ? problem.padded_value() : 0)) {
    maps->key_windows = mutable_data<Compute<T>>(keys_), maps->value_windows = mutable_data<Compute<T>>(values_);
  }

 private:
  static Tensor allocate(const PairwiseTraining& problem, const Tensor& query, int64_t columns) {
    const bool is_shared = problem.bands_of_image() > 1;
    const int64_t pixels = is_shared ? problem.bands() * problem.max_window_rows() * problem.footprint.columns.size : 0;
    return torch::stable::empty({pixels * columns + kMaxLanes}, compute_dtype(query), std::nullopt, query.device());
  }

  Tensor keys_, values_;
};

template <typename T>
void add_windows(const PairwiseTraining& problem, const PairParameters<Compute<T>>& parameters,
                 const TrainingMaps<T>& maps, bool with_values) {
  share_tasks(problem.batch * problem.footprint.rows.size, 8, [&](int64_t begin, int64_t end) {
    SA_LAYERS_DISPATCH(T, pairwise_add_windows, problem, parameters, maps, with_values, begin, end);
  });
}

Tensor statistics(const Tensor& query, const Tensor& key, const PairArguments& given) {
  const auto geometries = make_geometry(query, key, given);
  const PairGeometry& geometry = geometries.front();
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
  const auto geometries = make_geometry(query, key, given);
  const PairGeometry& geometry = geometries.front();
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

std::tuple<Tensor, Tensor> forward(const Tensor& query, const Tensor& key, const Tensor& value,
                                   const std::vector<Tensor>& mapping_tensors, const PairArguments& given) {
  check_mapping_size(mapping_tensors);
  check_dims("value", value, 4);
  const auto geometries =
      make_geometry(query, key, given, value.size(3), mapping_tensors[4].size(0), mapping_tensors[7].size(0));
  const PairGeometry& geometry = geometries.front();
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
  const auto geometries =
      make_geometry(query, key, given, value.size(3), mapping_tensors[4].size(0), mapping_tensors[7].size(0));
  const PairGeometry& geometry = geometries.front();
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

std::tuple<Tensor, Tensor> correction(const Tensor& query, const Tensor& key,
                                      const std::vector<Tensor>& mapping_tensors, const Tensor& matrix,
                                      const Tensor& offset, const PairArguments& given, const Tensor& grad_query,
                                      const Tensor& grad_key) {
  check_mapping_size(mapping_tensors);
  const auto geometries = make_geometry(query, key, given, 1, mapping_tensors[4].size(0), mapping_tensors[7].size(0));
  const PairGeometry& geometry = geometries.front();
  const PairwiseTraining& problem = geometry.problem;
  const int64_t features = problem.features(), positions = problem.positions, relation = problem.relation_channels();
  check_pixels("grad_query", grad_query, query, shape_of(query));
  check_pixels("grad_key", grad_key, query, shape_of(query));
  check_vector("matrix", matrix, {features, features});
  check_vector("offset", offset, {features});
  const MappingInDouble mapping = read_mapping(mapping_tensors, problem);
  const Doubles matrices = doubles(matrix), constants = doubles(offset);
  FeatureGradients gradients;
  dispatch_dtype("query", query, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    TrainingMaps<T> maps = maps_of<T>(query, key);
    maps.grad_query = view<T>(grad_query), maps.grad_key = view<T>(grad_key), maps.accumulate = true;
    FoldedParameters<Compute<T>> folded(geometry, sample_centers(problem, maps), mapping.scale1, mapping.shift1,
                                        mapping.center, true);
    const Doubles activations = activate_offsets(geometry, mapping.scale1, mapping.shift1);
    // matrix * (a - center) + offset without the columns of the pairs, by offset.
    Doubles summands(problem.offsets() * features, 0.0);
    for (int64_t i = 0; i < problem.offsets(); ++i) {
      for (int64_t e = 0; e < features; ++e) {
        double sum = constants[e];
        for (int64_t d = 0; d < features; ++d) {
          const bool in_columns = d < folded.features_in_columns();
          const double a = in_columns ? folded.center[d] : activations[i * positions + d - relation];
          sum += matrices[e * features + d] * (a - mapping.center[d]);
        }
        summands[i * features + e] = sum;
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
  const auto geometries = make_geometry(query, key, given);
  const PairGeometry& geometry = geometries.front();
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

// The arguments of the schemas.
#define SA_LAYERS_PAIR_PARAMETERS                                                                      \
  const OptionalTensor &query_position, const OptionalTensor &key_position, const Pair &position_size, \
      const Pair &kernel_size, const std::string &relation, const Pair &stride, const Pair &dilation,  \
      const std::string &padding_mode
#define SA_LAYERS_PAIR_ARGUMENTS \
  PairArguments { query_position, key_position, position_size, kernel_size, relation, stride, dilation, padding_mode }

Tensor pairwise_training_statistics(const Tensor& query, const Tensor& key, SA_LAYERS_PAIR_PARAMETERS) {
  return statistics(query, key, SA_LAYERS_PAIR_ARGUMENTS);
}
std::tuple<Tensor, Tensor> pairwise_training_moments(const Tensor& query, const Tensor& key, const Tensor& scale1,
                                                     const Tensor& shift1, SA_LAYERS_PAIR_PARAMETERS) {
  return moments(query, key, scale1, shift1, SA_LAYERS_PAIR_ARGUMENTS);
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
  library.impl("pairwise_training_statistics", TORCH_BOX(&sa_layers::cpu::pairwise_training_statistics));
  library.impl("pairwise_training_moments", TORCH_BOX(&sa_layers::cpu::pairwise_training_moments));
  library.impl("pairwise_training_forward", TORCH_BOX(&sa_layers::cpu::pairwise_training_forward));
  library.impl("pairwise_training_backward", TORCH_BOX(&sa_layers::cpu::pairwise_training_backward));
  library.impl("pairwise_training_correction", TORCH_BOX(&sa_layers::cpu::pairwise_training_correction));
  library.impl("pairwise_training_norm_backward", TORCH_BOX(&sa_layers::cpu::pairwise_training_norm_backward));
}

#endif  // SA_LAYERS_ONCE
