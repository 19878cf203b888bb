// Binding of the hidden layer in training, and of its backward pass.

#include "cpu/patchwise_training/operands.h"
#include "cpu/simd/dispatch.h"

#define SA_LAYERS_TARGET_INCLUDE "cpu/patchwise_training/hidden.cpp"
#include "cpu/simd/foreach_target.h"

// Compiled once for each instruction set.
#include "cpu/patchwise_training/hidden.h"

#if SA_LAYERS_ONCE

namespace sa_layers::cpu {
namespace {

// The sizes that follow from the operands of the hidden layer.
HiddenProblem hidden_problem(const Tensor& query, const Tensor& key, const Tensor& weight, const Footprint& footprint) {
  check_shape("key", key, shape_of(query));
  check_like("key", key, "query", query);
  check_dims("weight", weight, 2);
  STD_TORCH_CHECK(query.size(3) > 0 && weight.size(0) > 0, "query and weight must have at least one channel");
  const int64_t lanes = vector_lanes(query.scalar_type() == ScalarType::Double);
  return HiddenProblem(footprint, query.size(0), query.size(3), weight.size(0), lanes);
}

// The operands with memory for the packed parameters, and these packed.
template <typename T>
class PackedHidden {
 public:
  PackedHidden(const HiddenProblem& problem, const Tensor& query, const Tensor& key, const Tensor& scale,
               const Tensor& shift, const Tensor& weight, bool is_backward)
      : norms_(2 * problem.columns.size()),
        weight_(is_backward ? problem.columns.size() * problem.weight_channels
                            : problem.columns.slices * outputs_size(problem.columns, problem.outputs)),
        operands{problem,
                 pixels_of<T>("query", query),
                 pixels_of<T>("key", key),
                 parameter<Compute<T>>("scale", scale, query, {problem.features()}),
                 parameter<Compute<T>>("shift", shift, query, {problem.features()}),
                 parameter<Compute<T>>("weight", weight, query, {problem.weight_channels, problem.features()}),
                 norms_.data(),
                 norms_.data() + problem.columns.size(),
                 weight_.data()} {
    run(problem.columns.slices,
        [&](int64_t begin, int64_t end) { SA_LAYERS_DISPATCH(T, pack_hidden, operands, is_backward, begin, end); });
  }

 private:
  Scratch<Compute<T>> norms_, weight_;

 public:
  const HiddenOperands<T> operands;
};

Tensor patchwise_hidden(const Tensor& query, const Tensor& key, const Tensor& scale, const Tensor& shift,
                        const Tensor& weight, const Pair& kernel_size, const Pair& stride, const Pair& dilation,
                        const std::string& padding_mode) {
  const Footprint footprint = footprint_of("query", query, kernel_size, stride, dilation, padding_mode);
  const HiddenProblem problem = hidden_problem(query, key, weight, footprint);
  check_small_enough(problem.region_size());
  const Tensor z =
      new_tensor(output_shape(footprint, problem.batch, problem.weight_channels), compute_dtype(query), query);
  dispatch_dtype("query", query, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const PackedHidden<T> packed(problem, query, key, scale, shift, weight, /*is_backward=*/false);
    Compute<T>* const to = mutable_data<Compute<T>>(z);
    run(problem.bands.tasks(),
        [&](int64_t begin, int64_t end) { SA_LAYERS_DISPATCH(T, hidden, packed.operands, to, begin, end); });
  });
  return z;
}

std::tuple<Tensor, Tensor> patchwise_hidden_backward(const Tensor& grad_z, const Tensor& query, const Tensor& key,
                                                     const Tensor& scale, const Tensor& shift, const Tensor& mean,
                                                     const Tensor& weight, const Tensor& grad_query,
                                                     const Tensor& grad_key, const Pair& kernel_size,
                                                     const Pair& stride, const Pair& dilation,
                                                     const std::string& padding_mode) {
  const Footprint footprint = footprint_of("query", query, kernel_size, stride, dilation, padding_mode);
  const HiddenProblem problem = hidden_problem(query, key, weight, footprint);
  const Columns& columns = problem.columns;
  const int64_t features = problem.features(), hidden = problem.weight_channels;
  for (const auto& [name, tensor] : {std::pair("grad_query", grad_query), std::pair("grad_key", grad_key)}) {
    check_shape(name, tensor, shape_of(query));
    check_like(name, tensor, "query", query);
  }
  const Tensor grad_weight = new_tensor({hidden, features}, ScalarType::Double, query);
  const Tensor sums = new_tensor({2, features}, ScalarType::Double, query);
  const Tensor means = in_compute_dtype(mean, query);
  dispatch_dtype("query", query, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    using C = Compute<T>;
    const PackedHidden<T> packed(problem, query, key, scale, shift, weight, /*is_backward=*/true);
    const Scratch<C> packed_mean(columns.size());
    const C* const from = parameter<C>("mean", means, query, {features});
    run(columns.slices, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, pack_mean, packed.operands, from, packed_mean.data(), begin, end);
    });
    const bool shares_images = problem.bands.of_image > 1;
    const int64_t region_size = problem.region_size(), tasks = columns.slices * problem.bands.tasks();
    check_small_enough(region_size);
    const Scratch<C> regions(shares_images ? columns.slices * problem.bands.count * region_size + columns.lanes : 1);
    const Scratch<C> task_sums(tasks * problem.sums_size());
    const std::vector<int64_t> z_shape = output_shape(footprint, problem.batch, hidden);
    const HiddenGradients<T> gradients{parameter<C>("grad_z", grad_z, query, z_shape),
                                       packed_mean.data(),
                                       task_sums.data(),
                                       mutable_pixels_of<T>("grad_query", grad_query),
                                       {mutable_pixels_of<T>("grad_key", grad_key), regions.data(), region_size}};
    run(tasks, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, hidden_backward, packed.operands, gradients, begin, end);
    });
    if (shares_images) {
      run(columns.slices * problem.batch * footprint.rows.size,
          [&](int64_t begin, int64_t end) { SA_LAYERS_DISPATCH(T, add_bands, problem, gradients.key, begin, end); });
    }
    run(columns.slices * (hidden + 2), [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, add_hidden_sums, packed.operands, task_sums.data(), mutable_data<double>(grad_weight),
                         mutable_data<double>(sums), begin, end);
    });
  });
  return {grad_weight, sums};
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("patchwise_hidden", TORCH_BOX(&sa_layers::cpu::patchwise_hidden));
  library.impl("patchwise_hidden_backward", TORCH_BOX(&sa_layers::cpu::patchwise_hidden_backward));
}

#endif  // SA_LAYERS_ONCE
