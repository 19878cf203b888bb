// Binding of projection.

#include "cpu/projection.h"

#include "cpu/binding.h"
#include "cpu/share_tasks.h"
#include "operands/linear.h"

#define SA_LAYERS_KERNELS "cpu/projection_kernels.inc"
#include "cpu/for_each_capability.inc"

namespace sa_layers::cpu {
namespace {

void projection(const Tensor& features, const Tensor& matrix, const OptionalTensor& bias, const OptionalTensor& scale,
                const OptionalTensor& shift, const OptionalTensor& output_scale, const OptionalTensor& output_shift,
                const Tensor& result, bool pools) {
  STD_TORCH_CHECK(features.dim() > 1, "features must have pixels and channels, got the shape ",
                  shape_text(shape_of(features)));
  check_dims("matrix", matrix, 3);
  STD_TORCH_CHECK(features.scalar_type() == ScalarType::Float, "features must be float32, got ",
                  torch::headeronly::toString(features.scalar_type()));
  const int64_t channels = features.size(-1), panels = matrix.size(0);
  STD_TORCH_CHECK(channels > 0, "features must have at least one channel");
  check_coefficients("matrix", matrix, features, {panels, channels, kPanelColumns});
  std::vector<int64_t> result_shape = shape_of(features);
  if (pools) {
    check_dims("features", features, 4);
    STD_TORCH_CHECK(!scale, "scale must not be given for features that are pooled");
    result_shape[1] /= 2, result_shape[2] /= 2;
  }
  result_shape.back() = panels * kPanelColumns;
  check_coefficients("result", result, features, result_shape);
  check_contiguous("result", result);
  if (bias) check_coefficients("bias", *bias, features, {panels * kPanelColumns});
  check_scale_and_shift("scale", scale, "shift", shift, features, channels);
  check_scale_and_shift("output_scale", output_scale, "output_shift", output_shift, features, panels * kPanelColumns);
  if (result.numel() == 0) return;

  const auto pointer = [](const OptionalTensor& tensor) { return tensor ? data<float>(*tensor) : nullptr; };
  const Tensor from = as_contiguous(features), panel_matrices = as_contiguous(matrix);
  const OptionalTensor biases = as_contiguous(bias), scales = as_contiguous(scale), shifts = as_contiguous(shift);
  const OptionalTensor output_scales = as_contiguous(output_scale), output_shifts = as_contiguous(output_shift);
  Projection problem{};
  problem.pixels = result.numel() / result_shape.back(), problem.channels = channels, problem.panels = panels;
  problem.features = data<float>(from), problem.feature_step = channels;
  problem.pools = pools;
  if (pools) problem.height = features.size(1), problem.width = features.size(2);
  problem.row_step = problem.width * channels;
  problem.scale = pointer(scales), problem.shift = pointer(shifts);
  problem.matrix = data<float>(panel_matrices), problem.bias = pointer(biases), problem.adds = !bias;
  problem.output_scale = pointer(output_scales), problem.output_shift = pointer(output_shifts);
  problem.result = mutable_data<float>(result), problem.result_step = result_shape.back();
  problem.share_out(torch::stable::get_num_threads());
  share_tasks(problem.tasks(), problem.grain(),
              [&](int64_t begin, int64_t end) { SA_LAYERS_BEST(float, projection, problem, begin, end); });
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("projection", TORCH_BOX(&sa_layers::cpu::projection));
}
