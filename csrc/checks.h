// Checks that every binding makes before a kernel reads memory. sa_layers.ops checks arguments for users; these checks
// keep a direct call of torch.ops.sa_layers from reading out of bounds.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <string>
#include <vector>

#include "footprint.h"

namespace sa_layers {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Pair = std::vector<int64_t>;

inline std::string shape_text(const std::vector<int64_t>& sizes) {
  std::string text = "(";
  for (size_t i = 0; i < sizes.size(); ++i) text += (i ? ", " : "") + std::to_string(sizes[i]);
  return text + ")";
}

inline std::vector<int64_t> shape_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return {sizes.begin(), sizes.end()};
}

inline void check_dims(const char* name, const Tensor& tensor, int64_t dims) {
  STD_TORCH_CHECK(tensor.dim() == dims, name, " must have ", dims, " dimensions, got the shape ",
                  shape_text(shape_of(tensor)));
}

inline void check_shape(const char* name, const Tensor& tensor, const std::vector<int64_t>& expected) {
  STD_TORCH_CHECK(shape_of(tensor) == expected, name, " must have the shape ", shape_text(expected), ", got ",
                  shape_text(shape_of(tensor)));
}

// The dtype and device of the first tensor of the call.
inline void check_like(const char* name, const Tensor& tensor, const char* first_name, const Tensor& first) {
  STD_TORCH_CHECK(tensor.scalar_type() == first.scalar_type(), name, " must have the dtype of ", first_name, ", ",
                  torch::headeronly::toString(first.scalar_type()), ", got ",
                  torch::headeronly::toString(tensor.scalar_type()));
  STD_TORCH_CHECK(tensor.device() == first.device(), name, " must be on the device of ", first_name);
}

// For tensors that are written in place.
inline void check_contiguous(const char* name, const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.is_contiguous(), name, " must be contiguous");
}

// Within these limits, which sa_layers/ops/footprint.py has too, no index and no size of a kernel overflows.
constexpr int64_t kMaxSize = (int64_t{1} << 16) - 1;  // of kernel_size, stride and dilation, along each axis
constexpr int64_t kMaxTaps = int64_t{1} << 20;
constexpr int64_t kMaxReach = int64_t{1} << 20;   // pixels from the first to the last tap, along each axis
constexpr int64_t kMaxPixels = int64_t{1} << 40;  // of a map

inline void check_pair(const char* name, const Pair& pair, bool odd) {
  STD_TORCH_CHECK(pair.size() == 2 && pair[0] > 0 && pair[1] > 0 && (!odd || (pair[0] % 2 == 1 && pair[1] % 2 == 1)),
                  name, " must be two positive ", odd ? "odd " : "", "numbers, got ", shape_text(pair));
  STD_TORCH_CHECK(pair[0] <= kMaxSize && pair[1] <= kMaxSize, name, " must be at most ", kMaxSize, ", got ",
                  shape_text(pair));
}

inline Footprint make_footprint(int64_t height, int64_t width, const Pair& kernel_size, const Pair& stride,
                                const Pair& dilation, const std::string& padding_mode, bool clamp_allowed = false) {
  check_pair("kernel_size", kernel_size, true);
  check_pair("stride", stride, false);
  check_pair("dilation", dilation, false);
  STD_TORCH_CHECK(kernel_size[0] * kernel_size[1] <= kMaxTaps, "kernel_size must have at most ", kMaxTaps,
                  " taps, got ", shape_text(kernel_size));
  STD_TORCH_CHECK(dilation[0] * (kernel_size[0] - 1) <= kMaxReach && dilation[1] * (kernel_size[1] - 1) <= kMaxReach,
                  "dilation * (kernel_size - 1) must be at most ", kMaxReach, " pixels, got kernel_size ",
                  shape_text(kernel_size), " and dilation ", shape_text(dilation));
  STD_TORCH_CHECK(height > 0 && width > 0, "height and width must be positive, got ", shape_text({height, width}));
  STD_TORCH_CHECK(height <= kMaxPixels / width, "a map must have at most ", kMaxPixels, " pixels, got ",
                  shape_text({height, width}));
  const bool clamp = clamp_allowed && padding_mode == "clamp";
  STD_TORCH_CHECK(padding_mode == "reflect" || padding_mode == "zeros" || clamp, "padding_mode must be 'reflect'",
                  clamp_allowed ? ", 'zeros' or 'clamp'" : " or 'zeros'", ", got '", padding_mode, "'");
  STD_TORCH_CHECK(
      !clamp || (height >= kernel_size[0] * dilation[0] && width >= kernel_size[1] * dilation[1]),
      "a map must have at least kernel_size * dilation pixels along each axis with padding_mode 'clamp', got ",
      shape_text({height, width}), ", kernel_size ", shape_text(kernel_size), " and dilation ", shape_text(dilation));
  return {{height, kernel_size[0], stride[0], dilation[0]},
          {width, kernel_size[1], stride[1], dilation[1]},
          padding_mode == "reflect" ? Padding::kReflect
          : clamp                   ? Padding::kClamp
                                    : Padding::kZeros};
}

}  // namespace sa_layers
