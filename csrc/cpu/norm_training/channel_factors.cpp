// The few numbers of each channel between the passes of a norm in training, in float64: scale and shift from the
// statistics, running statistics, and the factors of the gradient from its sums.

#include <cmath>

#include "cpu/runtime/doubles.h"

namespace sa_layers::cpu {
namespace {

void check_numbers(const char* name, const Tensor& tensor, int64_t rows, int64_t channels) {
  check_shape(name, tensor, {rows, channels});
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Double && tensor.is_contiguous(), name,
                  " must be float64 and contiguous");
}

// Calls read(channel, value) for the values of a parameter of any floating-point dtype.
template <typename Read>
void for_each_value(const char* name, const Tensor& parameter, int64_t channels, const Read& read) {
  check_shape(name, parameter, {channels});
  const Doubles values = doubles(parameter);
  for (int64_t c = 0; c < channels; ++c) read(c, values[c]);
}

std::tuple<Tensor, Tensor> norm_scale_and_shift(const Tensor& statistics, const OptionalTensor& weight,
                                                const OptionalTensor& bias, double eps) {
  const int64_t channels = statistics.size(-1);
  check_numbers("statistics", statistics, 2, channels);
  const Tensor folded = torch::stable::new_empty(statistics, {4, channels}),
               rounded = torch::stable::new_empty(statistics, {2, channels}, ScalarType::Float);
  const double *mean = data<double>(statistics), *variance = mean + channels;
  double *const scale = mutable_data<double>(folded), *const shift = scale + channels;
  double* const inverse = shift + 2 * channels;
  for (int64_t c = 0; c < channels; ++c) {
    shift[channels + c] = mean[c];
    scale[c] = inverse[c] = 1 / std::sqrt(variance[c] + eps);
  }
  if (weight) for_each_value("weight", *weight, channels, [&](int64_t c, double value) { scale[c] *= value; });
  for (int64_t c = 0; c < channels; ++c) shift[c] = -mean[c] * scale[c];
  if (bias) for_each_value("bias", *bias, channels, [&](int64_t c, double value) { shift[c] += value; });
  float* const coefficients = mutable_data<float>(rounded);
  for (int64_t i = 0; i < 2 * channels; ++i) coefficients[i] = static_cast<float>(scale[i]);
  return {folded, rounded};
}

void norm_track(const Tensor& statistics, const Tensor& running_mean, const Tensor& running_var, double factor,
                double count) {
  const int64_t channels = statistics.size(-1);
  check_numbers("statistics", statistics, 2, channels);
  const double *mean = data<double>(statistics), *variance = mean + channels;
  const double unbiased = count / std::fmax(count - 1, 1);
  const Tensor* const running[] = {&running_mean, &running_var};
  for (int i = 0; i < 2; ++i) {
    check_shape(i == 0 ? "running_mean" : "running_var", *running[i], {channels});
    check_contiguous(i == 0 ? "running_mean" : "running_var", *running[i]);
    const auto update = [&](auto* values) {
      for (int64_t c = 0; c < channels; ++c) {
        const double now = i == 0 ? mean[c] : variance[c] * unbiased;
        values[c] = static_cast<std::remove_pointer_t<decltype(values)>>((1 - factor) * values[c] + factor * now);
      }
    };
    if (running[i]->scalar_type() == ScalarType::Float) {
      update(mutable_data<float>(*running[i]));
    } else {
      STD_TORCH_CHECK(running[i]->scalar_type() == ScalarType::Double, "running statistics must be float32 or float64");
      update(mutable_data<double>(*running[i]));
    }
  }
}

std::tuple<Tensor, Tensor, Tensor> norm_gradient(const Tensor& sums, const OptionalTensor& totals, const Tensor& folded,
                                                 double count) {
  const int64_t channels = sums.size(-1);
  check_numbers("sums", sums, 2, channels);
  check_numbers("folded", folded, 4, channels);
  if (totals) check_numbers("totals", *totals, 2, channels);
  const double *scale = data<double>(folded), *mean = scale + 2 * channels, *inverse = scale + 3 * channels;
  const Tensor gradients = torch::stable::new_empty(sums, {2, channels});
  double *const of_weight = mutable_data<double>(gradients), *const of_bias = of_weight + channels;
  const double *sum = data<double>(sums), *product = sum + channels;
  for (int64_t c = 0; c < channels; ++c) of_weight[c] = product[c] * inverse[c], of_bias[c] = sum[c];
  const bool is_frozen = count <= 0;
  const Tensor means = torch::stable::new_empty(sums, {is_frozen ? 0 : 2, channels}),
               factors = torch::stable::new_empty(sums, {is_frozen ? 1 : 3, channels});
  double *const constant = mutable_data<double>(means), *const k1 = mutable_data<double>(factors);
  if (totals) sum = data<double>(*totals), product = sum + channels;
  for (int64_t c = 0; c < channels; ++c) {
    k1[c] = scale[c];
    if (is_frozen) continue;
    const double slope = product[c] * inverse[c] * inverse[c] / count;
    constant[c] = sum[c] / count, constant[channels + c] = slope;
    k1[channels + c] = -scale[c] * slope;
    k1[2 * channels + c] = scale[c] * (slope * mean[c] - constant[c]);
  }
  return {gradients, means, factors};
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("norm_scale_and_shift", TORCH_BOX(&sa_layers::cpu::norm_scale_and_shift));
  library.impl("norm_track", TORCH_BOX(&sa_layers::cpu::norm_track));
  library.impl("norm_gradient", TORCH_BOX(&sa_layers::cpu::norm_gradient));
}
