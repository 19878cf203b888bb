// Bindings of affine_relu, normed_projection, max_pooling and pooled_projection.

#include "cuda/common/binding.h"

#include "cuda/linear/launch.h"
#include "operands/linear.h"

namespace sa_layers::cuda {

namespace {

void compute(const Tensor& features, const Tensor& scale, const Tensor& shift, const Tensor& result) {
  const DeviceOf device(features);
  const Tensor scales = torch::stable::contiguous(scale), shifts = torch::stable::contiguous(shift);
  STD_CUDA_CHECK(launch_affine_relu(features.size(0) * features.size(1) * features.size(2), features.size(3),
                                    element_of("features", features), features.const_data_ptr(),
                                    scales.const_data_ptr(), shifts.const_data_ptr(), result.mutable_data_ptr(),
                                    device.stream()));
}

Tensor affine_relu(const Tensor& features, const Tensor& scale, const Tensor& shift) {
  check_affine_relu(features, scale, shift);
  const Tensor from = torch::stable::contiguous(features),
               result = torch::stable::new_empty(features, shape_of(features));
  compute(from, scale, shift, result);
  return result;
}

void affine_relu_(const Tensor& features, const Tensor& scale, const Tensor& shift) {
  check_affine_relu(features, scale, shift);
  check_contiguous("features", features);
  compute(features, scale, shift, features);
}

bool normed_projection(const Tensor& features, const Tensor& weight, const Tensor& bias, const Tensor& scale,
                       const Tensor& shift, const Tensor& result) {
  check_normed_projection(features, weight, bias, scale, shift, result);
  const int64_t channels = features.size(3), out_channels = weight.size(1);
  const DeviceOf device(features);
  const Tensor from = torch::stable::contiguous(features), weights = torch::stable::contiguous(weight),
               biases = torch::stable::contiguous(bias), scales = torch::stable::contiguous(scale),
               shifts = torch::stable::contiguous(shift);
  const NormedProjection problem = {features.size(0) * features.size(1) * features.size(2),
                                    channels,
                                    out_channels,
                                    from.const_data_ptr(),
                                    weights.const_data_ptr(),
                                    biases.const_data_ptr(),
                                    scales.const_data_ptr(),
                                    shifts.const_data_ptr(),
                                    result.mutable_data_ptr()};
  bool launched = false;
  STD_CUDA_CHECK(launch_normed_projection(problem, element_of("features", features), device.stream(), launched));
  return launched;
}

Tensor max_pooling(const Tensor& features, const OptionalTensor& scale, const OptionalTensor& shift) {
  check_dims("features", features, 4);
  check_scale_and_shift("scale", scale, "shift", shift, features, features.size(3));
  const Pooling problem{features.size(0), features.size(1), features.size(2), features.size(3)};
  const DeviceOf device(features);
  const Tensor from = torch::stable::contiguous(features);
  const auto contiguous = [](const OptionalTensor& tensor) {
    return tensor ? OptionalTensor(torch::stable::contiguous(*tensor)) : std::nullopt;
  };
  const auto pointer = [](const OptionalTensor& tensor) { return tensor ? tensor->const_data_ptr() : nullptr; };
  const OptionalTensor scales = contiguous(scale), shifts = contiguous(shift);
  const Tensor result =
      torch::stable::new_empty(features, {problem.batch, problem.height / 2, problem.width / 2, problem.channels});
  STD_CUDA_CHECK(launch_max_pooling(problem, element_of("features", features), from.const_data_ptr(), pointer(scales),
                                    pointer(shifts), result.mutable_data_ptr(), device.stream()));
  return result;
}

Tensor pooled_projection(const Tensor& image, const Tensor& weight, const Tensor& shift) {
  check_pooled_projection(image, weight, shift);
  const Pooling problem{image.size(0), image.size(2), image.size(3), shift.size(0)};
  const DeviceOf device(image);
  const Tensor weights = torch::stable::contiguous(weight), shifts = torch::stable::contiguous(shift);
  const Tensor result =
      torch::stable::new_empty(image, {problem.batch, problem.height / 2, problem.width / 2, problem.channels});
  const ImageSteps steps{image.stride(0), image.stride(1), image.stride(2), image.stride(3)};
  STD_CUDA_CHECK(launch_pooled_projection(problem, image.size(1), steps, element_of("image", image),
                                          image.const_data_ptr(), weights.const_data_ptr(), shifts.const_data_ptr(),
                                          result.mutable_data_ptr(), device.stream()));
  return result;
}

}  // namespace

}  // namespace sa_layers::cuda

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CUDA, library) {
  library.impl("affine_relu", TORCH_BOX(&sa_layers::cuda::affine_relu));
  library.impl("affine_relu_", TORCH_BOX(&sa_layers::cuda::affine_relu_));
  library.impl("normed_projection", TORCH_BOX(&sa_layers::cuda::normed_projection));
  library.impl("max_pooling", TORCH_BOX(&sa_layers::cuda::max_pooling));
  library.impl("pooled_projection", TORCH_BOX(&sa_layers::cuda::pooled_projection));
}
