// Operands of the linear layers, norms and poolings of evaluation, as the bindings of all devices check them. Maps are
// channels last, (N, H, W, C).
#pragma once

#include "operands/aggregation.h"

namespace sa_layers {

// A frozen norm with its ReLU.
inline void check_affine_relu(const Tensor& features, const Tensor& scale, const Tensor& shift) {
  check_dims("features", features, 4);
  check_coefficients("scale", scale, features, {features.size(3)});
  check_coefficients("shift", shift, features, {features.size(3)});
}

inline void check_pooled_projection(const Tensor& image, const Tensor& weight, const Tensor& shift) {
  check_dims("image", image, 4);
  check_dims("shift", shift, 1);
  check_coefficients("weight", weight, image, {image.size(1), shift.size(0)});
  check_coefficients("shift", shift, image, {shift.size(0)});
}

// A linear layer of a frozen norm with its ReLU, in the dtype of the features.
inline void check_normed_projection(const Tensor& features, const Tensor& weight, const Tensor& bias,
                                    const Tensor& scale, const Tensor& shift, const Tensor& result) {
  check_affine_relu(features, scale, shift);
  check_dims("weight", weight, 2);
  const int64_t channels = features.size(3), out_channels = weight.size(1);
  check_shape("weight", weight, {channels, out_channels});
  check_shape("bias", bias, {out_channels});
  check_shape("result", result, {features.size(0), features.size(1), features.size(2), out_channels});
  check_like("weight", weight, "features", features);
  check_like("bias", bias, "features", features);
  check_like("result", result, "features", features);
  check_contiguous("result", result);
}

// A scale and a shift that are given together or not at all.
inline void check_scale_and_shift(const char* scale_name, const OptionalTensor& scale, const char* shift_name,
                                  const OptionalTensor& shift, const Tensor& features, int64_t channels) {
  STD_TORCH_CHECK(scale.has_value() == shift.has_value(), scale_name, " and ", shift_name, " must be given together");
  if (!scale) return;
  check_coefficients(scale_name, *scale, features, {channels});
  check_coefficients(shift_name, *shift, features, {channels});
}

}  // namespace sa_layers
