// Binding of the closed form of the features' norm in training.

#include "cpu/patchwise_training/operands.h"
#include "cpu/simd/dispatch.h"

#define SA_LAYERS_TARGET_INCLUDE "cpu/patchwise_training/norm.cpp"
#include "cpu/simd/foreach_target.h"

// Compiled once for each instruction set.
#include "cpu/patchwise_training/norm.h"

#if SA_LAYERS_ONCE

namespace sa_layers::cpu {
namespace {

const double* float64_parameter(const char* name, const Tensor& tensor, const std::vector<int64_t>& shape) {
  check_shape(name, tensor, shape);
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Double, name, " must be float64");
  check_contiguous(name, tensor);
  return data<double>(tensor);
}

void check_normed_maps(const Tensor& query, const Tensor& key) {
  check_dims("query", query, 4);
  check_shape("key", key, shape_of(query));
  check_like("key", key, "query", query);
  STD_TORCH_CHECK(query.size(3) > 0, "query must have at least one channel");
}

// A map with the columns that its taps read.
template <typename T>
NormedMap<T> normed_map(const char* name, const Tensor& map, const Tensor& columns) {
  check_dims("columns", columns, 2);
  const int64_t taps = columns.size(0), width = map.size(2);
  const double* const counts = float64_parameter("columns", columns, {taps, width});
  return {pixels_of<T>(name, map), map.size(0), map.size(1), width, map.size(3), taps, counts, nullptr, {nullptr, 0}};
}

std::tuple<Tensor, Tensor> patchwise_row_sums(const Tensor& query, const Tensor& key, const Tensor& shifts,
                                              const Tensor& query_columns, const Tensor& key_columns) {
  check_normed_maps(query, key);
  const int64_t height = query.size(1), channels = query.size(3);
  const double* const shift = float64_parameter("shifts", shifts, {2, channels});
  const auto new_sums = [&](const Tensor& columns) {
    return new_tensor({2, height, columns.size(0), channels}, ScalarType::Double, query);
  };
  const Tensor query_sums = new_sums(query_columns), key_sums = new_sums(key_columns);
  dispatch_dtype("query", query, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const auto of_query = normed_map<T>("query", query, query_columns), of_key = normed_map<T>("key", key, key_columns);
    run(height, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, sum_rows, of_query, of_key, shift, mutable_data<double>(query_sums),
                         mutable_data<double>(key_sums), begin, end);
    });
  });
  return {query_sums, key_sums};
}

// Adds coefficients and a gradient.
template <typename T>
void add_gradient(const char* name, const Tensor& map, const Tensor& coefficients, const Tensor& gradient,
                  NormedMap<T>& to) {
  check_shape(name, gradient, shape_of(map));
  check_like(name, gradient, "query", map);
  to.coefficients = float64_parameter("coefficients", coefficients, {2, to.height, to.taps, to.channels});
  to.gradient = mutable_pixels_of<T>(name, gradient);
}

void patchwise_subtract_norm(const Tensor& query, const Tensor& key, const Tensor& centres, const Tensor& query_columns,
                             const Tensor& key_columns, const Tensor& query_coefficients,
                             const Tensor& key_coefficients, const Tensor& grad_query, const Tensor& grad_key) {
  check_normed_maps(query, key);
  const double* const centre = float64_parameter("centres", centres, {2, query.size(3)});
  dispatch_dtype("query", query, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    auto of_query = normed_map<T>("query", query, query_columns), of_key = normed_map<T>("key", key, key_columns);
    add_gradient("grad_query", query, query_coefficients, grad_query, of_query);
    add_gradient("grad_key", key, key_coefficients, grad_key, of_key);
    run(query.size(1), [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, subtract_norm, of_query, of_key, centre, begin, end);
    });
  });
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("patchwise_row_sums", TORCH_BOX(&sa_layers::cpu::patchwise_row_sums));
  library.impl("patchwise_subtract_norm", TORCH_BOX(&sa_layers::cpu::patchwise_subtract_norm));
}

#endif  // SA_LAYERS_ONCE
