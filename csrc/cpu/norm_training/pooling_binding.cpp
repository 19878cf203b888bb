// Bindings of 2x2 max-pooling after a norm and a ReLU in training.

#include <vector>

#include "cpu/norm_training/norm_gradients.h"
#include "cpu/runtime/share_tasks.h"
#include "cpu/simd/dispatch.h"
#include "operands/linear.h"

#define SA_LAYERS_TARGET_INCLUDE "cpu/norm_training/pooling_binding.cpp"
#include "cpu/simd/foreach_target.h"

// Compiled once for each instruction set.
#include "cpu/norm_training/max_pooling.h"
#include "cpu/norm_training/max_pooling_backward.h"

#if SA_LAYERS_ONCE

namespace sa_layers::cpu {
namespace {

// Maps that are pooled, and the norm and the ReLU before.
void check_pooling(const char* name, const Tensor& map, const OptionalTensor& scale, const OptionalTensor& shift) {
  check_dims(name, map, 4);
  check_pixels(name, map);
  STD_TORCH_CHECK(map.size(1) > 1 && map.size(2) > 1, name, " must have at least 2 x 2 pixels, got the shape ",
                  shape_text(shape_of(map)));
  check_scale_and_shift("scale", scale, "shift", shift, map, map.size(3));
}

std::vector<int64_t> pooled_shape(const Tensor& map) {
  return {map.size(0), map.size(1) / 2, map.size(2) / 2, map.size(3)};
}

// scale and shift must be contiguous.
template <typename T>
Pooling<T> make_pooling(const Tensor& rows, const OptionalTensor& scale, const OptionalTensor& shift) {
  const auto pointer = [](const OptionalTensor& tensor) { return tensor ? data<Compute<T>>(*tensor) : nullptr; };
  return {map_of<T>(rows), rows.size(1), rows.size(2), rows.size(3), pointer(scale), pointer(shift)};
}

Tensor max_pooling(const Tensor& features, const OptionalTensor& scale, const OptionalTensor& shift) {
  check_pooling("features", features, scale, shift);
  const Tensor from = as_rows(features), result = torch::stable::new_empty(features, pooled_shape(features));
  const OptionalTensor scales = as_contiguous(scale), shifts = as_contiguous(shift);
  const int64_t rows = result.size(0) * result.size(1);
  dispatch_dtype("features", features, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const Pooling<T> problem = make_pooling<T>(from, scales, shifts);
    const int64_t grain = max(1, 8192 / (result.size(2) * result.size(3)));
    torch::stable::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, max_pooling, problem, mutable_data<T>(result), begin, end);
    });
  });
  return result;
}

Tensor max_pooling_sums(const Tensor& grad_pooled, const Tensor& pixels, const Tensor& scale, const Tensor& shift,
                        const Tensor& mean) {
  check_pooling("pixels", pixels, scale, shift);
  check_shape("grad_pooled", grad_pooled, pooled_shape(pixels));
  check_like("grad_pooled", grad_pooled, "pixels", pixels);
  const int64_t channels = pixels.size(3), out_width = grad_pooled.size(2);
  check_float64("mean", mean, {channels});
  const Tensor from = as_rows(pixels), gradient = as_rows(grad_pooled), means = as_contiguous(mean);
  const OptionalTensor scales = as_contiguous(scale), shifts = as_contiguous(shift);
  const Tensor result = torch::stable::new_empty(pixels, {2, channels}, ScalarType::Double);
  const Folding unfolded(0, channels, false);
  dispatch_dtype("pixels", pixels, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    using C = Compute<T>;
    const std::vector<C> centers = unfolded.repeat<C>(data<double>(means));
    const PoolingSums<T> problem{make_pooling<T>(from, scales, shifts), map_of<T>(gradient), centers.data()};
    const Bands bands(grad_pooled.size(0) * grad_pooled.size(1), 4 * out_width * channels, 1);
    std::vector<double> sums(bands.count() * 2 * channels);
    share_tasks(bands.count(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t band = begin; band < end; ++band) {
        double* const to = &sums[band * 2 * channels];
        SA_LAYERS_DISPATCH(T, max_pooling_sums, problem, bands.begin(band), bands.end(band), to);
      }
    });
    add_bands(sums, unfolded, means, centers, mutable_data<double>(result));
  });
  return result;
}

void max_pooling_backward(const Tensor& grad_pooled, const Tensor& pixels, const OptionalTensor& scale,
                          const OptionalTensor& shift, const OptionalTensor& factors, const Tensor& out) {
  check_pooling("pixels", pixels, scale, shift);
  check_shape("grad_pooled", grad_pooled, pooled_shape(pixels));
  check_like("grad_pooled", grad_pooled, "pixels", pixels);
  check_same("out", out, "pixels", pixels);
  const int64_t channels = pixels.size(3);
  if (factors) check_factors(*factors, channels);
  const Tensor from = as_rows(pixels), gradient = as_rows(grad_pooled);
  const OptionalTensor scales = as_contiguous(scale), shifts = as_contiguous(shift);
  WrittenRows written(out);
  dispatch_dtype("pixels", pixels, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const CenteredFactors<Compute<T>> centered(factors, Folding(0, channels, false));
    const PoolingBackward<T> problem{make_pooling<T>(from, scales, shifts), map_of<T>(gradient),
                                     centered.template pointers<T>(), mutable_map_of<T>(written.rows())};
    const int64_t grain = max(1, 8192 / (grad_pooled.size(2) * channels));
    const int64_t rows = grad_pooled.size(0) * grad_pooled.size(1);
    torch::stable::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, max_pooling_backward, problem, begin, end);
    });
  });
  written.finish();
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("max_pooling", TORCH_BOX(&sa_layers::cpu::max_pooling));
  library.impl("max_pooling_sums", TORCH_BOX(&sa_layers::cpu::max_pooling_sums));
  library.impl("max_pooling_backward", TORCH_BOX(&sa_layers::cpu::max_pooling_backward));
}

#endif  // SA_LAYERS_ONCE
