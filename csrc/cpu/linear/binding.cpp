// Bindings of projection, affine_relu and pooled_projection.

#include <vector>

#include "cpu/linear/panel_weights.h"
#include "cpu/linear/problem.h"
#include "cpu/runtime/share_tasks.h"
#include "cpu/runtime/tensors.h"
#include "cpu/simd/dispatch.h"
#include "operands/attention.h"
#include "operands/linear.h"

#define SA_LAYERS_TARGET_INCLUDE "cpu/linear/binding.cpp"
#include "cpu/simd/foreach_target.h"

// Compiled once for each instruction set.
#include "cpu/linear/affine_relu.h"
#include "cpu/linear/pooled_projection.h"
#include "cpu/linear/projection.h"

#if SA_LAYERS_ONCE

namespace sa_layers::cpu {
namespace {

void projection(const Tensor& features, const std::vector<Tensor>& weights, const std::vector<Tensor>& biases,
                const OptionalTensor& scale, const OptionalTensor& shift, const OptionalTensor& output_scale,
                const OptionalTensor& output_shift, const Tensor& result, bool pools) {
  STD_TORCH_CHECK(features.dim() > 1, "features must have pixels and channels, got the shape ",
                  shape_text(shape_of(features)));
  STD_TORCH_CHECK(features.scalar_type() == ScalarType::Float, "features must be float32, got ",
                  torch::headeronly::toString(features.scalar_type()));
  const int64_t channels = features.size(-1);
  STD_TORCH_CHECK(channels > 0, "features must have at least one channel");
  STD_TORCH_CHECK(!weights.empty() && (biases.empty() || biases.size() == weights.size()),
                  "weights must be a list of tensors, and biases empty or a list of as many, got ", weights.size(),
                  " and ", biases.size());
  std::vector<Tensor> matrices;
  std::vector<float> bias;
  for (size_t layer = 0; layer < weights.size(); ++layer) {
    STD_TORCH_CHECK(weights[layer].dim() >= 2, "weights must have 2 dimensions, got the shape ",
                    shape_text(shape_of(weights[layer])));
    check_layer_parameter("weights", weights[layer], features, {weights[layer].size(0), channels});
    matrices.push_back(as_contiguous(weights[layer]));
    if (biases.empty()) continue;
    check_layer_parameter("biases", biases[layer], features, {weights[layer].size(0)});
    const Tensor values = as_contiguous(biases[layer]);
    bias.insert(bias.end(), data<float>(values), data<float>(values) + values.numel());
  }
  const PanelWeights panels(matrices, channels);
  const int64_t columns = panels.panels() * kPanelColumns;
  bias.resize(columns, 0.0f);
  std::vector<int64_t> result_shape = shape_of(features);
  if (pools) {
    check_dims("features", features, 4);
    STD_TORCH_CHECK(!scale, "scale must not be given for features that are pooled");
    result_shape[1] /= 2, result_shape[2] /= 2;
  }
  result_shape.back() = columns;
  check_coefficients("result", result, features, result_shape);
  check_contiguous("result", result);
  check_scale_and_shift("scale", scale, "shift", shift, features, channels);
  check_scale_and_shift("output_scale", output_scale, "output_shift", output_shift, features, columns);
  if (result.numel() == 0) return;

  const auto pointer = [](const OptionalTensor& tensor) { return tensor ? data<float>(*tensor) : nullptr; };
  const Tensor from = as_contiguous(features);
  const OptionalTensor scales = as_contiguous(scale), shifts = as_contiguous(shift);
  const OptionalTensor output_scales = as_contiguous(output_scale), output_shifts = as_contiguous(output_shift);
  Projection problem{};
  problem.pixels = result.numel() / columns, problem.channels = channels, problem.panels = panels.panels();
  problem.features = data<float>(from), problem.feature_stride = channels;
  problem.pools = pools;
  if (pools) problem.height = features.size(1), problem.width = features.size(2);
  problem.row_stride = problem.width * channels;
  problem.scale = pointer(scales), problem.shift = pointer(shifts);
  problem.weights = panels.data_of_panels(), problem.bias = bias.data(), problem.adds = biases.empty();
  problem.output_scale = pointer(output_scales), problem.output_shift = pointer(output_shifts);
  problem.result = mutable_data<float>(result), problem.result_stride = columns;
  problem.split(torch::stable::get_num_threads());
  const Scratch<float> matrix(problem.matrix_is_cached ? columns * channels : 0);
  problem.matrix = matrix.data();
  if (problem.matrix_is_cached) {
    // A thread is worth starting for about 5 microseconds at eight numbers a nanosecond.
    const int64_t grain = max(1, 40'000 / (channels * kPanelColumns));
    torch::stable::parallel_for(0, problem.panels, grain, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(float, pack_panels, problem, begin, end, matrix.data());
    });
  }
  share_tasks(problem.tasks(), problem.grain(),
              [&](int64_t begin, int64_t end) { SA_LAYERS_DISPATCH(float, projection, problem, begin, end); });
}

// The result may be the features themselves.
void affine_relu_into(const Tensor& features, const Tensor& scale, const Tensor& shift, const Tensor& result) {
  const int64_t channels = features.size(3), pixels = features.size(0) * features.size(1) * features.size(2);
  const Tensor scales = torch::stable::contiguous(scale), shifts = torch::stable::contiguous(shift);
  dispatch_dtype("features", features, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    using C = Compute<T>;
    const int64_t grain = max(1, 32'768 / max(1, channels));
    torch::stable::parallel_for(0, pixels, grain, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, affine_relu, data<T>(features), data<C>(scales), data<C>(shifts), channels,
                         mutable_data<T>(result), begin, end);
    });
  });
}

Tensor affine_relu(const Tensor& features, const Tensor& scale, const Tensor& shift) {
  check_affine_relu(features, scale, shift);
  const Tensor from = torch::stable::contiguous(features),
               result = torch::stable::new_empty(features, shape_of(features));
  affine_relu_into(from, scale, shift, result);
  return result;
}

void affine_relu_(const Tensor& features, const Tensor& scale, const Tensor& shift) {
  check_affine_relu(features, scale, shift);
  check_contiguous("features", features);
  affine_relu_into(features, scale, shift, features);
}

Tensor pooled_projection(const Tensor& image, const Tensor& weight, const Tensor& shift) {
  check_pooled_projection(image, weight, shift);
  const int64_t in_channels = image.size(1), height = image.size(2), width = image.size(3), channels = shift.size(0);
  const Tensor from = torch::stable::contiguous(image);
  const Tensor weights = torch::stable::contiguous(weight), shifts = torch::stable::contiguous(shift);
  const Tensor result = torch::stable::new_empty(image, {image.size(0), height / 2, width / 2, channels});
  dispatch_dtype("image", image, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    using C = Compute<T>;
    const int64_t grain = max(1, 16'384 / max(1, width * in_channels));
    share_tasks(image.size(0) * (height / 2), grain, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, pooled_projection, data<T>(from), data<C>(weights), data<C>(shifts), in_channels, height,
                         width, channels, mutable_data<T>(result), begin, end);
    });
  });
  return result;
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("projection", TORCH_BOX(&sa_layers::cpu::projection));
  library.impl("affine_relu", TORCH_BOX(&sa_layers::cpu::affine_relu));
  library.impl("affine_relu_", TORCH_BOX(&sa_layers::cpu::affine_relu_));
  library.impl("pooled_projection", TORCH_BOX(&sa_layers::cpu::pooled_projection));
}

#endif  // SA_LAYERS_ONCE
