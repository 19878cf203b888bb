// Operands of the passes, as their bindings check them.
#pragma once

#include "cpu/patchwise_training/arguments.h"
#include "cpu/runtime/share_tasks.h"
#include "cpu/runtime/tensors.h"

namespace sa_layers::cpu {

// A map (N, H, W, C): the distance between its pixels.
inline int64_t pixel_stride_of(const char* name, const Tensor& map) {
  const int64_t height = map.size(1), width = map.size(2), channels = map.size(3);
  const int64_t stride = width > 1         ? map.stride(2)
                         : height > 1      ? map.stride(1)
                         : map.size(0) > 1 ? map.stride(0)
                                           : channels;
  const bool is_channels_last = (channels == 1 || map.stride(3) == 1) && (width == 1 || map.stride(2) == stride) &&
                                (height == 1 || map.stride(1) == width * stride) &&
                                (map.size(0) <= 1 || map.stride(0) == height * width * stride);
  STD_TORCH_CHECK(map.numel() == 0 || is_channels_last, name,
                  " must have contiguous channels, and pixels that are equally far apart");
  return stride;
}

template <typename T>
PixelMap<const T> pixels_of(const char* name, const Tensor& map) {
  return {data<T>(map), pixel_stride_of(name, map)};
}
template <typename T>
PixelMap<T> mutable_pixels_of(const char* name, const Tensor& map) {
  return {mutable_data<T>(map), pixel_stride_of(name, map)};
}

inline void check_small_enough(int64_t region_size) {
  STD_TORCH_CHECK(region_size < (int64_t{1} << 30),
                  "the rows of a map that a footprint reads must have less than 2**30 ", "elements, got ", region_size);
}

// A contiguous parameter in the compute dtype of a map, and its elements.
template <typename C>
const C* parameter(const char* name, const Tensor& tensor, const Tensor& map, const std::vector<int64_t>& shape) {
  check_coefficients(name, tensor, map, shape);
  check_contiguous(name, tensor);
  return data<C>(tensor);
}

inline Tensor new_tensor(const std::vector<int64_t>& shape, ScalarType dtype, const Tensor& like) {
  return torch::stable::empty(shape, dtype, std::nullopt, like.device());
}

inline std::vector<int64_t> output_shape(const Footprint& footprint, int64_t batch, int64_t channels) {
  return {batch, footprint.rows.output_size(), footprint.columns.output_size(), channels};
}

inline Footprint footprint_of(const char* name, const Tensor& map, const Pair& kernel_size, const Pair& stride,
                              const Pair& dilation, const std::string& padding_mode) {
  check_dims(name, map, 4);
  return make_footprint(map.size(1), map.size(2), kernel_size, stride, dilation, padding_mode);
}

// Runs one task per call of the kernel at least.
template <typename Kernel>
void run(int64_t tasks, const Kernel& kernel) {
  if (tasks > 0) share_tasks(tasks, 1, kernel);
}

}  // namespace sa_layers::cpu
