// Bindings of the stem in training.

#include <tuple>
#include <vector>

#include "cpu/norm_training/rows.h"
#include "cpu/norm_training/stem.h"
#include "cpu/runtime/share_tasks.h"
#include "cpu/simd/dispatch.h"

#define SA_LAYERS_TARGET_INCLUDE "cpu/norm_training/stem_binding.cpp"
#include "cpu/simd/foreach_target.h"

// Compiled once for each instruction set.
#include "cpu/norm_training/image_moments.h"
#include "cpu/norm_training/stem_backward.h"

#if SA_LAYERS_ONCE

namespace sa_layers::cpu {
namespace {

void check_image(const Tensor& image) {
  check_dims("image", image, 4);
  STD_TORCH_CHECK(image.size(1) > 0 && image.size(1) <= kMaxImageChannels, "image must have 1 to ", kMaxImageChannels,
                  " channels, got ", image.size(1));
}

std::tuple<Tensor, Tensor> image_moments(const Tensor& image) {
  check_image(image);
  const int64_t channels = image.size(1), pixels = image.size(2) * image.size(3);
  const Tensor from = as_contiguous(image);
  const Bands bands(pixels, channels, kRunPixels);
  std::vector<ImageMoments> moments(image.size(0) * bands.count());
  dispatch_dtype("image", image, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const Planes<T> planes{data<T>(from), channels, pixels};
    share_tasks(static_cast<int64_t>(moments.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t band = task % bands.count();
        SA_LAYERS_DISPATCH(T, image_moments, planes, task / bands.count(), bands.begin(band), bands.end(band),
                           &moments[task]);
      }
    });
  });
  ImageMoments all;
  for (const ImageMoments& band : moments) all.merge(band, channels);
  const Tensor mean = torch::stable::new_empty(image, {channels}, ScalarType::Double);
  const Tensor covariance = torch::stable::new_empty(image, {channels, channels}, ScalarType::Double);
  double *const means = mutable_data<double>(mean), *const products = mutable_data<double>(covariance);
  for (int64_t i = 0; i < channels; ++i) {
    means[i] = all.count > 0 ? all.mean[i] : 0.0 / all.count;
    for (int64_t j = i; j < channels; ++j) {
      products[i * channels + j] = products[j * channels + i] = all.products[i][j] / all.count;
    }
  }
  return {mean, covariance};
}

Tensor stem_backward(const Tensor& grad_pooled, const Tensor& image, const Tensor& weight, const Tensor& shift,
                     const Tensor& mean) {
  check_image(image);
  const int64_t in_channels = image.size(1), inputs = stem_inputs(in_channels);
  check_dims("shift", shift, 1);
  const int64_t channels = shift.size(0), out_height = image.size(2) / 2, out_width = image.size(3) / 2;
  check_coefficients("weight", weight, image, {in_channels, channels});
  check_coefficients("shift", shift, image, {channels});
  check_shape("grad_pooled", grad_pooled, {image.size(0), out_height, out_width, channels});
  check_like("grad_pooled", grad_pooled, "image", image);
  check_float64("mean", mean, {in_channels});
  const Tensor from = as_contiguous(image), gradient = as_rows(grad_pooled), shifts = as_contiguous(shift);
  const Tensor weights = as_contiguous(weight), means = as_contiguous(mean);
  const Tensor result = torch::stable::new_empty(image, {1 + in_channels, channels}, ScalarType::Double);
  const Bands bands(image.size(0) * out_height, 2 * out_width * channels, 1);
  const int64_t band_sums = (1 + inputs) * channels;
  std::vector<double> sums(bands.count() * band_sums);
  double* const to = mutable_data<double>(result);
  dispatch_dtype("image", image, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    using C = Compute<T>;
    std::vector<C> matrix(inputs * channels), center(inputs);
    std::copy_n(data<C>(weights), in_channels * channels, matrix.begin());
    std::copy_n(data<double>(means), in_channels, center.begin());
    const StemBackward<T> problem{data<T>(from), in_channels,   image.size(2),   image.size(3), map_of<T>(gradient),
                                  channels,      matrix.data(), data<C>(shifts), center.data()};
    share_tasks(bands.count(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t band = begin; band < end; ++band) {
        double* const band_to = &sums[band * band_sums];
        SA_LAYERS_DISPATCH(T, stem_backward, problem, inputs, bands.begin(band), bands.end(band), band_to);
      }
    });
    for (int64_t i = 0; i < (1 + in_channels) * channels; ++i) {
      to[i] = 0;
      for (int64_t band = 0; band < bands.count(); ++band) to[i] += sums[band * band_sums + i];
    }
    for (int64_t k = 0; k < in_channels; ++k) {  // from the rounded center to the mean itself
      const double rounding = static_cast<double>(center[k]) - data<double>(means)[k];
      for (int64_t c = 0; c < channels; ++c) to[(1 + k) * channels + c] += rounding * to[c];
    }
  });
  return result;
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("image_moments", TORCH_BOX(&sa_layers::cpu::image_moments));
  library.impl("stem_backward", TORCH_BOX(&sa_layers::cpu::stem_backward));
}

#endif  // SA_LAYERS_ONCE
