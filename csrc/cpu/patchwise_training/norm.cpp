// Binding of the closed form of the features' norm in training.

#include "cpu/patchwise_training/operands.h"
#include "cpu/simd/dispatch.h"

#define SA_LAYERS_TARGET_INCLUDE "cpu/patchwise_training/norm.cpp"
#include "cpu/simd/foreach_target.h"

// Compiled once for each instruction set.
#include "cpu/patchwise_training/norm.h"

#if SA_LAYERS_ONCE

namespace sa_layers::cpu {
namespace {

const double* float64_parameter(const char* name, const Tensor& tensor, const std::vector<int64_t>& shape) {
  check_shape(name, tensor, shape);
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Double, name, " must be float64");
  check_contiguous(name, tensor);
  return data<double>(tensor);
}

template <typename T>
RowsOfMap<const T> rows_of(const Tensor& pixels, const Tensor& columns) {
  const int64_t taps = columns.size(0), width = pixels.size(2);
  return {pixels_of<T>("pixels", pixels),
          pixels.size(0),
          pixels.size(1),
          width,
          pixels.size(3),
          taps,
          float64_parameter("columns", columns, {taps, width})};
}

void check_map_and_columns(const Tensor& pixels, const Tensor& columns) {
  check_dims("pixels", pixels, 4);
  check_dims("columns", columns, 2);
  STD_TORCH_CHECK(pixels.size(3) > 0, "pixels must have at least one channel");
}

Tensor patchwise_row_sums(const Tensor& pixels, const Tensor& shift, const Tensor& columns) {
  check_map_and_columns(pixels, columns);
  const int64_t height = pixels.size(1), channels = pixels.size(3);
  const Tensor sums = new_tensor({2, height, columns.size(0), channels}, ScalarType::Double, pixels);
  const double* const shifts = float64_parameter("shift", shift, {channels});
  dispatch_dtype("pixels", pixels, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const auto rows = rows_of<T>(pixels, columns);
    run(height, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, sum_rows_of_map, rows, shifts, mutable_data<double>(sums), begin, end);
    });
  });
  return sums;
}

void patchwise_subtract_norm(const Tensor& pixels, const Tensor& centre, const Tensor& coefficients,
                             const Tensor& columns, const Tensor& gradient) {
  check_map_and_columns(pixels, columns);
  check_shape("gradient", gradient, shape_of(pixels));
  check_like("gradient", gradient, "pixels", pixels);
  const int64_t height = pixels.size(1), channels = pixels.size(3);
  const double* const centres = float64_parameter("centre", centre, {channels});
  const double* const numbers = float64_parameter("coefficients", coefficients, {2, height, columns.size(0), channels});
  dispatch_dtype("pixels", pixels, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const auto rows = rows_of<T>(pixels, columns);
    const PixelMap<T> to = mutable_pixels_of<T>("gradient", gradient);
    run(height, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, subtract_norm, rows, centres, numbers, to, begin, end);
    });
  });
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("patchwise_row_sums", TORCH_BOX(&sa_layers::cpu::patchwise_row_sums));
  library.impl("patchwise_subtract_norm", TORCH_BOX(&sa_layers::cpu::patchwise_subtract_norm));
}

#endif  // SA_LAYERS_ONCE
