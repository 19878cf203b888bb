// Binding of the weighted sum in training, and of its backward pass.

#include "cpu/patchwise_training/operands.h"
#include "cpu/simd/dispatch.h"

#define SA_LAYERS_TARGET_INCLUDE "cpu/patchwise_training/weighted_sum.cpp"
#include "cpu/simd/foreach_target.h"

// Compiled once for each instruction set.
#include "cpu/patchwise_training/weighted_sum.h"

#if SA_LAYERS_ONCE

namespace sa_layers::cpu {
namespace {

// The sizes that follow from the operands.
WeightedSumProblem weighted_sum_problem(const Tensor& z, const Tensor& value, const Footprint& footprint) {
  check_dims("z", z, 4);
  const int64_t hidden = z.size(3);
  STD_TORCH_CHECK(hidden > 0 && value.size(3) > 0 && value.size(3) % hidden == 0, "value must have a multiple of the ",
                  hidden, " channels of z, got ", value.size(3));
  const int64_t lanes = vector_lanes(value.scalar_type() == ScalarType::Double);
  return WeightedSumProblem(footprint, value.size(0), value.size(3), hidden, lanes);
}

// The operands with memory for the packed parameters, and these packed.
template <typename T>
class PackedWeightedSum {
 public:
  PackedWeightedSum(const WeightedSumProblem& problem, const Tensor& z, const Tensor& value, const Tensor& scale,
                    const Tensor& shift, const Tensor& weight, const Tensor& bias, bool is_backward)
      : weight_(problem.columns.size() * problem.weight_channels),
        bias_(problem.columns.size()),
        outputs_(is_backward ? problem.columns.slices * outputs_size(problem.columns, problem.outputs) : 1),
        operands{problem,
                 parameter<Compute<T>>("z", z, value, output_shape(problem.footprint, problem.batch, hidden(problem))),
                 pixels_of<T>("value", value),
                 parameter<Compute<T>>("scale", scale, value, {hidden(problem)}),
                 parameter<Compute<T>>("shift", shift, value, {hidden(problem)}),
                 parameter<Compute<T>>("weight", weight, value, {weights(problem), hidden(problem)}),
                 parameter<Compute<T>>("bias", bias, value, {weights(problem)}),
                 weight_.data(),
                 bias_.data(),
                 is_backward ? outputs_.data() : nullptr} {
    run(problem.columns.slices,
        [&](int64_t begin, int64_t end) { SA_LAYERS_DISPATCH(T, pack_weighted_sum, operands, begin, end); });
  }

 private:
  static int64_t hidden(const WeightedSumProblem& problem) { return problem.weight_channels; }
  static int64_t weights(const WeightedSumProblem& problem) { return problem.columns.taps * problem.weight_channels; }

  Scratch<Compute<T>> weight_, bias_, outputs_;

 public:
  const WeightedSumOperands<T> operands;
};

Tensor patchwise_weighted_sum(const Tensor& z, const Tensor& value, const Tensor& scale, const Tensor& shift,
                              const Tensor& weight, const Tensor& bias, const Pair& kernel_size, const Pair& stride,
                              const Pair& dilation, const std::string& padding_mode) {
  const Footprint footprint = footprint_of("value", value, kernel_size, stride, dilation, padding_mode);
  const WeightedSumProblem problem = weighted_sum_problem(z, value, footprint);
  check_small_enough(problem.region_size());
  const Tensor output =
      new_tensor(output_shape(footprint, problem.batch, problem.channels), value.scalar_type(), value);
  dispatch_dtype("value", value, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const PackedWeightedSum<T> packed(problem, z, value, scale, shift, weight, bias, /*is_backward=*/false);
    const PixelMap<T> to{mutable_data<T>(output), problem.channels};
    run(problem.bands.tasks(),
        [&](int64_t begin, int64_t end) { SA_LAYERS_DISPATCH(T, weighted_sum, packed.operands, to, begin, end); });
  });
  return output;
}

std::tuple<Tensor, Tensor, Tensor> patchwise_weighted_sum_backward(
    const Tensor& grad_output, const Tensor& z, const Tensor& value, const Tensor& scale, const Tensor& shift,
    const Tensor& weight, const Tensor& bias, const Tensor& grad_value, const Pair& kernel_size, const Pair& stride,
    const Pair& dilation, const std::string& padding_mode) {
  const Footprint footprint = footprint_of("value", value, kernel_size, stride, dilation, padding_mode);
  const WeightedSumProblem problem = weighted_sum_problem(z, value, footprint);
  const Columns& columns = problem.columns;
  const int64_t hidden = problem.weight_channels, weights = columns.taps * hidden;
  check_shape("grad_output", grad_output, output_shape(footprint, problem.batch, problem.channels));
  check_like("grad_output", grad_output, "value", value);
  check_shape("grad_value", grad_value, shape_of(value));
  check_like("grad_value", grad_value, "value", value);
  const std::vector<int64_t> z_shape = output_shape(footprint, problem.batch, hidden);
  const Tensor grad_hidden = new_tensor(z_shape, compute_dtype(value), value);
  const Tensor grad_weight = new_tensor({weights, hidden}, ScalarType::Double, value);
  const Tensor grad_bias = new_tensor({weights}, ScalarType::Double, value);
  dispatch_dtype("value", value, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    using C = Compute<T>;
    const PackedWeightedSum<T> packed(problem, z, value, scale, shift, weight, bias, /*is_backward=*/true);
    const bool shares_images = problem.bands.of_image > 1;
    const int64_t region_size = problem.region_size(), tasks = columns.slices * problem.bands.tasks();
    const int64_t hidden_size = grad_hidden.numel();
    check_small_enough(region_size);
    const Scratch<C> regions(shares_images ? columns.slices * problem.bands.count * region_size + columns.lanes : 1);
    const Scratch<C> task_sums(tasks * problem.sums_size());
    const Scratch<C> slices(columns.slices > 1 ? columns.slices * hidden_size : 1);
    const WeightedSumGradients<T> gradients{
        pixels_of<T>("grad_output", grad_output),
        columns.slices > 1 ? slices.data() : mutable_data<C>(grad_hidden),
        task_sums.data(),
        {mutable_pixels_of<T>("grad_value", grad_value), regions.data(), region_size}};
    run(tasks, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, weighted_sum_backward, packed.operands, gradients, begin, end);
    });
    if (shares_images) {
      run(columns.slices * problem.batch * footprint.rows.size,
          [&](int64_t begin, int64_t end) { SA_LAYERS_DISPATCH(T, add_bands, problem, gradients.value, begin, end); });
    }
    if (columns.slices > 1) {
      torch::stable::parallel_for(0, hidden_size, 10'000, [&](int64_t begin, int64_t end) {
        SA_LAYERS_DISPATCH(T, add_slices, slices.data(), columns.slices, hidden_size, mutable_data<C>(grad_hidden),
                           begin, end);
      });
    }
    run(columns.slices * columns.vectors(), [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, add_weighted_sums, packed.operands, task_sums.data(), mutable_data<double>(grad_weight),
                         mutable_data<double>(grad_bias), begin, end);
    });
  });
  return {grad_hidden, grad_weight, grad_bias};
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("patchwise_weighted_sum", TORCH_BOX(&sa_layers::cpu::patchwise_weighted_sum));
  library.impl("patchwise_weighted_sum_backward", TORCH_BOX(&sa_layers::cpu::patchwise_weighted_sum_backward));
}

#endif  // SA_LAYERS_ONCE
