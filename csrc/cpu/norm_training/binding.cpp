// Bindings of the norms in training: statistics, and the passes of their gradients.

#include <algorithm>
#include <vector>

#include "cpu/norm_training/norm_gradients.h"
#include "cpu/runtime/share_tasks.h"
#include "cpu/simd/dispatch.h"
#include "operands/linear.h"

#define SA_LAYERS_TARGET_INCLUDE "cpu/norm_training/binding.cpp"
#include "cpu/simd/foreach_target.h"

// Compiled once for each instruction set.
#include "cpu/norm_training/mask_and_sum.h"
#include "cpu/norm_training/norm_backward.h"
#include "cpu/norm_training/statistics.h"

#if SA_LAYERS_ONCE

namespace sa_layers::cpu {
namespace {

// Means of `count` rows and sums of squared deviations from them, to be merged with others' by Chan's formula.
struct Moments {
  double count;
  double *mean, *squares;

  void merge(const Moments& other, int64_t numbers) {
    const double all = count + other.count, share = other.count / all, weight = count * share;
    if (other.count == 0) return;
    for (int64_t i = 0; i < numbers; ++i) {
      const double delta = other.mean[i] - mean[i];
      mean[i] += share * delta;
      squares[i] += other.squares[i] + weight * delta * delta;
    }
    count = all;
  }
};

Tensor channel_statistics(const Tensor& pixels) {
  check_pixels("pixels", pixels);
  const int64_t channels = pixels.size(-1);
  const Tensor from = as_rows(pixels), result = torch::stable::new_empty(pixels, {2, channels}, ScalarType::Double);
  const Folding folding(pixels_of(pixels), channels, are_contiguous({from}));
  const Bands bands(folding.rows, folding.width, kRunPixels);
  const int64_t width = folding.width;
  std::vector<double> moments((bands.count() + 1) * 2 * width);
  double* const tail = &moments[bands.count() * 2 * width];
  dispatch_dtype("pixels", pixels, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    Map<const T> map = map_of<T>(from);
    map.stride *= folding.pixels_per_row;
    share_tasks(bands.count(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t band = begin; band < end; ++band) {
        double* const mean = &moments[band * 2 * width];
        const Statistics<T> problem{map, width};
        SA_LAYERS_DISPATCH(T, channel_statistics, problem, bands.begin(band), bands.end(band), mean, mean + width);
      }
    });
    const Statistics<T> problem{map, folding.tail};
    SA_LAYERS_DISPATCH(T, channel_statistics, problem, folding.rows, folding.rows + 1, tail, tail + width);
  });
  std::vector<double> totals(2 * width);
  Moments rows{0, totals.data(), &totals[width]};
  for (int64_t band = 0; band < bands.count(); ++band) {
    double* const mean = &moments[band * 2 * width];
    rows.merge({static_cast<double>(bands.end(band) - bands.begin(band)), mean, mean + width}, width);
  }
  double* const to = mutable_data<double>(result);
  std::fill_n(to, 2 * channels, 0.0);
  Moments all{0, to, to + channels};
  for (int64_t i = 0; i < width; i += channels) all.merge({rows.count, rows.mean + i, rows.squares + i}, channels);
  for (int64_t i = 0; i < folding.tail; i += channels) all.merge({1, tail + i, tail + width + i}, channels);
  for (int64_t c = 0; c < channels; ++c) to[channels + c] /= all.count;  // NaN of no pixels
  for (int64_t c = 0; all.count == 0 && c < channels; ++c) to[c] = to[channels + c];
  return result;
}

Tensor mask_and_sum(const Tensor& grad, const Tensor& pixels, const Tensor& scale, const Tensor& shift,
                    const Tensor& mean) {
  check_pixels("pixels", pixels);
  check_same("grad", grad, "pixels", pixels);
  const int64_t channels = pixels.size(-1);
  check_coefficients("scale", scale, pixels, {channels});
  check_coefficients("shift", shift, pixels, {channels});
  check_float64("mean", mean, {channels});
  const Tensor from = as_rows(pixels), scales = as_contiguous(scale), shifts = as_contiguous(shift);
  const Tensor means = as_contiguous(mean);
  WrittenRows written(grad);
  const Tensor result = torch::stable::new_empty(pixels, {2, channels}, ScalarType::Double);
  const Folding folding(pixels_of(pixels), channels, are_contiguous({from, written.rows()}));
  const Bands bands(folding.rows, folding.width, kRunPixels);
  std::vector<double> sums((bands.count() + 1) * 2 * folding.width);
  dispatch_dtype("pixels", pixels, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    using C = Compute<T>;
    const std::vector<C> factors = folding.repeat<C>(data<C>(scales)), summands = folding.repeat<C>(data<C>(shifts)),
                         centers = folding.repeat<C>(data<double>(means));
    Map<T> gradient = mutable_map_of<T>(written.rows());
    Map<const T> map = map_of<T>(from);
    gradient.stride *= folding.pixels_per_row, map.stride *= folding.pixels_per_row;
    MaskAndSum<T> problem{gradient, map, folding.width, factors.data(), summands.data(), centers.data()};
    share_tasks(bands.count(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t band = begin; band < end; ++band) {
        double* const to = &sums[band * 2 * folding.width];
        SA_LAYERS_DISPATCH(T, mask_and_sum, problem, bands.begin(band), bands.end(band), to);
      }
    });
    if (folding.tail > 0) {
      std::vector<double> tail(2 * folding.tail);
      problem.channels = folding.tail;
      SA_LAYERS_DISPATCH(T, mask_and_sum, problem, folding.rows, folding.rows + 1, tail.data());
      double* const to = &sums[bands.count() * 2 * folding.width];
      for (int64_t i = 0; i < folding.tail; ++i) to[i] = tail[i], to[folding.width + i] = tail[folding.tail + i];
    }
    add_bands(sums, folding, means, centers, mutable_data<double>(result));
  });
  written.finish();
  return result;
}

void norm_backward(const Tensor& grad, const Tensor& pixels, const Tensor& factors, const Tensor& out,
                   const OptionalTensor& residual) {
  check_pixels("pixels", pixels);
  check_same("grad", grad, "pixels", pixels);
  check_same("out", out, "pixels", pixels);
  if (residual) check_same("residual", *residual, "pixels", pixels);
  const int64_t channels = pixels.size(-1);
  check_factors(factors, channels);
  const Tensor from = as_rows(pixels), gradient = as_rows(grad), summand = residual ? as_rows(*residual) : gradient;
  WrittenRows written(out);
  const Folding folding(pixels_of(pixels), channels, are_contiguous({from, gradient, summand, written.rows()}));
  dispatch_dtype("pixels", pixels, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const CenteredFactors<Compute<T>> centered(factors, folding);
    NormBackward<T> problem{map_of<T>(gradient), map_of<T>(from),
                            folding.width,       centered.template pointers<T>(),
                            map_of<T>(summand),  mutable_map_of<T>(written.rows())};
    for (int64_t* stride :
         {&problem.grad.stride, &problem.pixels.stride, &problem.residual.stride, &problem.out.stride}) {
      *stride *= folding.pixels_per_row;
    }
    if (!residual) problem.residual.data = nullptr;
    const int64_t grain = max(1, 32'768 / folding.width);
    torch::stable::parallel_for(0, folding.rows, grain, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, norm_backward, problem, begin, end);
    });
    problem.channels = folding.tail;
    SA_LAYERS_DISPATCH(T, norm_backward, problem, folding.rows, folding.rows + 1);
  });
  written.finish();
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("channel_statistics", TORCH_BOX(&sa_layers::cpu::channel_statistics));
  library.impl("mask_and_sum", TORCH_BOX(&sa_layers::cpu::mask_and_sum));
  library.impl("norm_backward", TORCH_BOX(&sa_layers::cpu::norm_backward));
}

#endif  // SA_LAYERS_ONCE
