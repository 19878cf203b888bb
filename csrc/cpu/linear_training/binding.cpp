// Bindings of linear_forward, linear_backward_input and linear_backward_weight.

#include <tuple>
#include <vector>

#include "cpu/linear/panel_weights.h"
#include "cpu/linear_training/pixel_rows.h"
#include "cpu/linear_training/problem.h"
#include "cpu/runtime/share_tasks.h"
#include "cpu/runtime/tensors.h"
#include "cpu/simd/dispatch.h"
#include "operands/attention.h"
#include "operands/linear.h"

#define SA_LAYERS_TARGET_INCLUDE "cpu/linear_training/binding.cpp"
#include "cpu/simd/foreach_target.h"

// Compiled once for each instruction set.
#include "cpu/linear_training/pixel_product.h"
#include "cpu/linear_training/weight_gradient.h"

#if SA_LAYERS_ONCE

namespace sa_layers::cpu {
namespace {

void check_map(const char* name, const Tensor& map) {
  check_dims(name, map, 4);
  STD_TORCH_CHECK(map.scalar_type() == ScalarType::Float, name, " must be float32, got ",
                  torch::headeronly::toString(map.scalar_type()));
  STD_TORCH_CHECK(map.size(3) > 0, name, " must have at least one channel");
}

// A map of the same pixels as another, with so many channels.
void check_map_like(const char* name, const Tensor& map, const char* first_name, const Tensor& first,
                    int64_t channels) {
  check_shape(name, map, {first.size(0), first.size(1), first.size(2), channels});
  check_like(name, map, first_name, first);
}

// The weights of all layers, (D, channels).
struct Weights {
  std::vector<Tensor> matrices;
  int64_t outputs = 0;
};

Weights check_weights(const std::vector<Tensor>& weights, const Tensor& map) {
  STD_TORCH_CHECK(!weights.empty() && weights[0].dim() >= 2,
                  "weights must be a list of tensors of at least 2 dimensions");
  Weights all;
  for (const Tensor& weight : weights) {
    STD_TORCH_CHECK(weight.dim() >= 2, "weights must have 2 dimensions, got the shape ", shape_text(shape_of(weight)));
    check_layer_parameter("weights", weight, map, {weight.size(0), weights[0].size(1)});
    all.matrices.push_back(as_contiguous(weight));
    all.outputs += weight.size(0);
  }
  STD_TORCH_CHECK(all.outputs > 0, "weights must have at least one output channel");
  return all;
}

const float* pointer(const OptionalTensor& tensor) { return tensor ? data<float>(*tensor) : nullptr; }

// Packs the matrix, and multiplies. The work is split already.
void multiply(PixelProduct& problem) {
  const int64_t panel_size = problem.depth * kPanelColumns;
  const Scratch<float> matrix(problem.panels * panel_size);
  problem.matrix = matrix.data();
  // A thread is worth starting for about 5 microseconds at eight numbers a nanosecond.
  torch::stable::parallel_for(0, problem.panels, max(1, 40'000 / panel_size), [&](int64_t begin, int64_t end) {
    SA_LAYERS_DISPATCH(float, pack_matrices, problem, begin, end, matrix.data());
  });
  share_tasks(problem.tasks(), problem.grain(),
              [&](int64_t begin, int64_t end) { SA_LAYERS_DISPATCH(float, multiply_pixels, problem, begin, end); });
}

void linear_forward(const Tensor& pixels, const std::vector<Tensor>& weights, const std::vector<Tensor>& biases,
                    const OptionalTensor& scale, const OptionalTensor& shift, const OptionalTensor& residual,
                    const Tensor& result) {
  check_map("pixels", pixels);
  const int64_t channels = pixels.size(3);
  const Weights all = check_weights(weights, pixels);
  STD_TORCH_CHECK(weights[0].size(1) == channels, "weights must have ", channels, " input channels, got the shape ",
                  shape_text(shape_of(weights[0])));
  STD_TORCH_CHECK(biases.empty() || biases.size() == weights.size(), "biases must be empty or as many as weights, got ",
                  biases.size(), " and ", weights.size());
  check_scale_and_shift("scale", scale, "shift", shift, pixels, channels);
  if (residual) check_map_like("residual", *residual, "pixels", pixels, all.outputs);
  check_map_like("result", result, "pixels", pixels, all.outputs);
  std::vector<float> bias;
  for (size_t layer = 0; layer < biases.size(); ++layer) {
    check_layer_parameter("biases", biases[layer], pixels, {weights[layer].size(0)});
    const Tensor values = as_contiguous(biases[layer]);
    bias.insert(bias.end(), data<float>(values), data<float>(values) + values.numel());
  }
  bias.resize(pad_columns(all.outputs), 0.0f);
  if (result.numel() == 0) return;

  const PanelWeights panels(all.matrices, channels);
  const ReadRows from(pixels), added(residual ? *residual : pixels);
  const OptionalTensor scales = as_contiguous(scale), shifts = as_contiguous(shift);
  PixelProduct problem{};
  problem.pixels = result.numel() / all.outputs;
  problem.depth = problem.weight_channels = channels;
  problem.columns = all.outputs, problem.panels = panels.panels();
  problem.activations = {from.rows().data, from.rows().stride, pointer(scales), pointer(shifts)};
  problem.weights = panels.data_of_panels(), problem.transposes = true;
  problem.bias = bias.data(), problem.has_bias = !biases.empty();
  if (residual) problem.residual = added.rows();
  problem.result = mutable_data<float>(result), problem.result_stride = checked_pixel_stride("result", result);
  problem.split(torch::stable::get_num_threads());
  multiply(problem);
}

// The sums over the pixels, (2, columns) float64, from those of the bands, of float32 products with pixels - mean.
void add_sums(const PixelProduct& problem, const std::vector<double>& means, const Tensor& sums) {
  const int64_t columns = problem.panels * kPanelColumns;
  double* const to = mutable_data<double>(sums);
  for (int64_t c = 0; c < problem.columns; ++c) {
    double sum = 0, products = 0;
    for (int64_t band = 0; band < problem.bands(); ++band) {
      sum += problem.mask.sums[band * 2 * columns + c];
      products += problem.mask.sums[(band * 2 + 1) * columns + c];
    }
    to[c] = sum;
    // The kernel subtracted the mean in float32; this adds the rest of it.
    to[problem.columns + c] = products + (problem.mask.mean[c] - means[c]) * sum;
  }
}

Tensor linear_backward_input(const Tensor& grad, const std::vector<Tensor>& weights, const OptionalTensor& pixels,
                             const OptionalTensor& scale, const OptionalTensor& shift, const OptionalTensor& mean,
                             const Tensor& result) {
  check_map("grad", grad);
  const Weights all = check_weights(weights, grad);
  const int64_t channels = weights[0].size(1);
  STD_TORCH_CHECK(grad.size(3) == all.outputs, "grad must have ", all.outputs, " channels, got the shape ",
                  shape_text(shape_of(grad)));
  check_map_like("result", result, "grad", grad, channels);
  check_scale_and_shift("scale", scale, "shift", shift, grad, channels);
  STD_TORCH_CHECK(pixels.has_value() == scale.has_value() && mean.has_value() == scale.has_value(),
                  "pixels, scale, shift and mean must be given together");
  std::vector<double> means;
  if (mean) {
    check_map_like("pixels", *pixels, "grad", grad, channels);
    check_shape("mean", *mean, {channels});
    STD_TORCH_CHECK(mean->scalar_type() == ScalarType::Double, "mean must be float64, got ",
                    torch::headeronly::toString(mean->scalar_type()));
    const Tensor values = as_contiguous(*mean);
    means.assign(data<double>(values), data<double>(values) + channels);
  }
  const Tensor sums = torch::stable::new_empty(grad, {2, scale ? channels : 0}, ScalarType::Double);
  if (result.numel() == 0) return torch::stable::fill_(sums, 0.0);

  const PanelWeights panels(all.matrices, channels);
  const ReadRows from(grad), beside(pixels ? *pixels : grad);
  const OptionalTensor scales = as_contiguous(scale), shifts = as_contiguous(shift);
  const std::vector<float> bias(pad_columns(channels), 0.0f), rounded_means(means.begin(), means.end());
  PixelProduct problem{};
  problem.pixels = result.numel() / channels;
  problem.depth = all.outputs, problem.weight_channels = problem.columns = channels;
  problem.panels = pad_columns(channels) / kPanelColumns;
  problem.activations = {from.rows().data, from.rows().stride, nullptr, nullptr};
  problem.weights = panels.data_of_panels(), problem.bias = bias.data();
  problem.result = mutable_data<float>(result), problem.result_stride = checked_pixel_stride("result", result);
  problem.split(torch::stable::get_num_threads());
  const Scratch<double> band_sums(scale ? problem.bands() * 2 * problem.panels * kPanelColumns : 0);
  if (scale) problem.mask = {beside.rows(), pointer(scales), pointer(shifts), rounded_means.data(), band_sums.data()};
  multiply(problem);
  if (scale) add_sums(problem, means, sums);
  return sums;
}

std::tuple<Tensor, Tensor> linear_backward_weight(const Tensor& grad, const Tensor& pixels, const OptionalTensor& scale,
                                                  const OptionalTensor& shift, bool with_bias) {
  check_map("grad", grad);
  check_map("pixels", pixels);
  const int64_t outputs = grad.size(3), channels = pixels.size(3);
  check_map_like("pixels", pixels, "grad", grad, channels);
  check_scale_and_shift("scale", scale, "shift", shift, pixels, channels);
  const Tensor weight = torch::stable::new_empty(grad, {outputs, channels});
  const Tensor bias = torch::stable::new_empty(grad, {with_bias ? outputs : 0});
  if (grad.numel() == 0) return {torch::stable::fill_(weight, 0.0), torch::stable::fill_(bias, 0.0)};

  const ReadRows from(grad), beside(pixels);
  const OptionalTensor scales = as_contiguous(scale), shifts = as_contiguous(shift);
  WeightGradient problem{};
  problem.pixels = grad.numel() / outputs, problem.outputs = outputs, problem.channels = channels;
  problem.panels = pad_columns(channels) / kPanelColumns, problem.sums_stride = problem.panels * kPanelColumns;
  problem.grad = from.rows();
  problem.activations = {beside.rows().data, beside.rows().stride, pointer(scales), pointer(shifts)};
  problem.split(torch::stable::get_num_threads());
  const bool is_direct = problem.bands() == 1 && channels % kPanelColumns == 0;
  const Scratch<float> sums(is_direct ? 0 : problem.bands() * outputs * problem.sums_stride);
  const Scratch<double> bias_sums(with_bias ? problem.bands() * outputs : 0);
  problem.sums = is_direct ? mutable_data<float>(weight) : sums.data();
  if (with_bias) problem.bias_sums = bias_sums.data();
  share_tasks(problem.tasks(), problem.grain(),
              [&](int64_t begin, int64_t end) { SA_LAYERS_DISPATCH(float, weight_gradient, problem, begin, end); });
  if (!is_direct) {
    const int64_t grain = max(1, 40'000 / (problem.bands() * problem.sums_stride));
    torch::stable::parallel_for(0, outputs, grain, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(float, add_bands, problem, mutable_data<float>(weight), begin, end);
    });
  }
  for (int64_t output = 0; with_bias && output < outputs; ++output) {
    double sum = 0;
    for (int64_t band = 0; band < problem.bands(); ++band) sum += bias_sums.data()[band * outputs + output];
    mutable_data<float>(bias)[output] = static_cast<float>(sum);
  }
  return {weight, bias};
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("linear_forward", TORCH_BOX(&sa_layers::cpu::linear_forward));
  library.impl("linear_backward_input", TORCH_BOX(&sa_layers::cpu::linear_backward_input));
  library.impl("linear_backward_weight", TORCH_BOX(&sa_layers::cpu::linear_backward_weight));
}

#endif  // SA_LAYERS_ONCE
