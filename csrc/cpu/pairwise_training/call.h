// What the bindings of the passes of pairwise attention in training have in common: checks, views of maps, parameters.
#pragma once

#include <algorithm>
#include <cmath>
#include <tuple>

#include "cpu/pairwise_training/results.h"
#include "cpu/runtime/share_tasks.h"
#include "operands/attention.h"

namespace sa_layers::cpu {

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
inline void check_pixels(const char* name, const Tensor& map, const Tensor& query, const std::vector<int64_t>& shape) {
  check_shape(name, map, shape);
  check_like(name, map, "query", query);
  STD_TORCH_CHECK(map.size(3) == 1 || map.stride(3) == 1, name, " must have contiguous channels");
}

inline void check_vector(const char* name, const Tensor& tensor, const std::vector<int64_t>& shape) {
  check_shape(name, tensor, shape);
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Double || tensor.scalar_type() == ScalarType::Float, name,
                  " must be float32 or float64, got ", torch::headeronly::toString(tensor.scalar_type()));
}

template <typename T>
MapView<T> view(const Tensor& map) {
  return {const_cast<T*>(data<std::remove_const_t<T>>(map)), {map.stride(0), map.stride(1), map.stride(2)}};
}

inline Tensor float64(const Tensor& like, const std::vector<int64_t>& shape, const Doubles& numbers) {
  const Tensor result = torch::stable::empty(shape, ScalarType::Double, std::nullopt, like.device());
  std::copy(numbers.begin(), numbers.end(), mutable_data<double>(result));
  return result;
}

inline PairGeometry make_geometry(const Tensor& query, const Tensor& key, const PairArguments& given,
                                  int64_t value_channels = 1, int64_t hidden = 1, int64_t weight_channels = 1) {
  check_dims("query", query, 4);
  check_pixels("query", query, query, shape_of(query));
  check_pixels("key", key, query, shape_of(query));
  STD_TORCH_CHECK(query.size(3) > 0 && value_channels > 0, "query and value must have at least one channel");
  check_positions(given.query_position, given.key_position, given.position_size, query, kMaxPositions);
  return PairGeometry(
      query, key, given.query_position, given.key_position, given.position_size,
      make_footprint(query.size(1), query.size(2), given.kernel_size, given.stride, given.dilation, given.padding_mode),
      parse_relation(given.relation), value_channels, hidden, weight_channels);
}

template <typename T>
TrainingMaps<T> maps_of(const Tensor& query, const Tensor& key) {
  TrainingMaps<T> maps{};
  maps.query = view<const T>(query), maps.key = view<const T>(key);
  return maps;
}

inline MappingInDouble read_mapping(const std::vector<Tensor>& mapping, const PairwiseTraining& problem) {
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
inline void check_mapping_size(const std::vector<Tensor>& mapping) {
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

// The arguments of the schemas.
#define SA_LAYERS_PAIR_PARAMETERS                                                                      \
  const OptionalTensor &query_position, const OptionalTensor &key_position, const Pair &position_size, \
      const Pair &kernel_size, const std::string &relation, const Pair &stride, const Pair &dilation,  \
      const std::string &padding_mode
#define SA_LAYERS_PAIR_ARGUMENTS \
  PairArguments { query_position, key_position, position_size, kernel_size, relation, stride, dilation, padding_mode }

}  // namespace sa_layers::cpu
