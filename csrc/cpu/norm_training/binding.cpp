// Bindings of the norms and of the poolings after them in training.

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/norm_training/rows.h"
#include "cpu/runtime/share_tasks.h"
#include "cpu/simd/dispatch.h"
#include "operands/linear.h"

#define SA_LAYERS_TARGET_INCLUDE "cpu/norm_training/binding.cpp"
#include "cpu/simd/foreach_target.h"

// Compiled once for each instruction set.
#include "cpu/norm_training/mask_and_sum.h"
#include "cpu/norm_training/max_pooling.h"
#include "cpu/norm_training/max_pooling_backward.h"
#include "cpu/norm_training/norm_backward.h"
#include "cpu/norm_training/statistics.h"

#if SA_LAYERS_ONCE

namespace sa_layers::cpu {
namespace {

void check_pixels(const char* name, const Tensor& map) {
  STD_TORCH_CHECK(map.dim() > 1, name, " must have pixels and channels, got the shape ", shape_text(shape_of(map)));
  STD_TORCH_CHECK(map.size(-1) > 0, name, " must have at least one channel");
}

void check_same(const char* name, const Tensor& map, const char* first_name, const Tensor& first) {
  check_shape(name, map, shape_of(first));
  check_like(name, map, first_name, first);
}

int64_t pixels_of(const Tensor& map) { return map.numel() / map.size(-1); }

bool are_contiguous(std::initializer_list<Tensor> maps) {
  for (const Tensor& map : maps) {
    if (pixel_stride(map) != map.size(-1)) return false;
  }
  return true;
}

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

// Sums of bands, (2, width) each, and of the numbers after the last row: added in order, and from the rounded center to
// the mean itself.
template <typename C>
void add_bands(const std::vector<double>& sums, const Folding& folding, const Tensor& mean,
               const std::vector<C>& centers, double* to) {
  const int64_t channels = folding.channels, width = folding.width;
  std::vector<double> totals(2 * width);
  for (size_t band = 0; band < sums.size(); band += 2 * width) {
    for (int64_t i = 0; i < 2 * width; ++i) totals[i] += sums[band + i];
  }
  std::fill_n(to, 2 * channels, 0.0);
  for (int64_t i = 0; i < width; i += channels) {
    for (int64_t c = 0; c < channels; ++c) to[c] += totals[i + c], to[channels + c] += totals[width + i + c];
  }
  for (int64_t c = 0; c < channels; ++c) {
    to[channels + c] += (static_cast<double>(centers[c]) - data<double>(mean)[c]) * to[c];
  }
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

// The factors of a norm's backward pass in the dtype of computation. k2 * x and k3 cancel if the mean is many
// deviations: k3 = -k2 * mean - .... So k2 * x + k3 becomes k2 * (x - center) + k3' with the center -k3 / k2 rounded,
// of which x can be subtracted exactly where the two nearly cancel, and k3' what the rounding left, computed in
// float64.
template <typename C>
class CenteredFactors {
 public:
  CenteredFactors(const OptionalTensor& factors, const Folding& folding)
      : count_(factors ? factors->size(0) : 0), k1_(folding.width, C(1)) {
    if (count_ == 0) return;
    const int64_t channels = folding.channels;
    const Tensor contiguous = as_contiguous(*factors);
    const double* const k1 = data<double>(contiguous);
    k1_ = folding.repeat<C>(k1);
    if (count_ == 1) return;
    std::vector<double> center(channels), k3(channels);
    for (int64_t c = 0; c < channels; ++c) {
      const double slope = k1[channels + c], offset = k1[2 * channels + c];
      const auto rounded = static_cast<C>(-offset / slope);
      // Not for factors that float32 cannot hold: they are 0, or nothing cancels.
      const bool usable = std::isfinite(rounded) && std::isnormal(static_cast<C>(slope));
      center[c] = usable ? rounded : 0;
      k3[c] = offset + slope * center[c];
    }
    k2_ = folding.repeat<C>(k1 + channels), center_ = folding.repeat<C>(center.data());
    k3_ = folding.repeat<C>(k3.data());
  }

  template <typename T>
  Factors<T> pointers() const {
    if (count_ < 3) return {k1_.data(), nullptr, nullptr, nullptr};
    return {k1_.data(), k2_.data(), center_.data(), k3_.data()};
  }

 private:
  int64_t count_;
  std::vector<C> k1_, k2_, center_, k3_;
};

void check_factors(const Tensor& factors, int64_t channels) {
  const bool has_statistics = factors.dim() != 2 || factors.size(0) != 1;
  check_float64("factors", factors, {has_statistics ? 3 : 1, channels});
}

void norm_backward(const Tensor& grad, const Tensor& pixels, const Tensor& factors, const Tensor& out,
                   bool accumulate) {
  check_pixels("pixels", pixels);
  check_same("grad", grad, "pixels", pixels);
  check_same("out", out, "pixels", pixels);
  const int64_t channels = pixels.size(-1);
  check_factors(factors, channels);
  const Tensor from = as_rows(pixels), gradient = as_rows(grad);
  WrittenRows written(out);
  const Folding folding(pixels_of(pixels), channels, are_contiguous({from, gradient, written.rows()}));
  dispatch_dtype("pixels", pixels, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const CenteredFactors<Compute<T>> centered(factors, folding);
    NormBackward<T> problem{map_of<T>(gradient), map_of<T>(from),
                            folding.width,       centered.template pointers<T>(),
                            accumulate,          mutable_map_of<T>(written.rows())};
    for (int64_t* stride : {&problem.grad.stride, &problem.pixels.stride, &problem.out.stride}) {
      *stride *= folding.pixels_per_row;
    }
    const int64_t grain = max(1, 32'768 / folding.width);
    torch::stable::parallel_for(0, folding.rows, grain, [&](int64_t begin, int64_t end) {
      SA_LAYERS_DISPATCH(T, norm_backward, problem, begin, end);
    });
    problem.channels = folding.tail;
    SA_LAYERS_DISPATCH(T, norm_backward, problem, folding.rows, folding.rows + 1);
  });
  written.finish();
}

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
  library.impl("channel_statistics", TORCH_BOX(&sa_layers::cpu::channel_statistics));
  library.impl("mask_and_sum", TORCH_BOX(&sa_layers::cpu::mask_and_sum));
  library.impl("norm_backward", TORCH_BOX(&sa_layers::cpu::norm_backward));
  library.impl("max_pooling", TORCH_BOX(&sa_layers::cpu::max_pooling));
  library.impl("max_pooling_sums", TORCH_BOX(&sa_layers::cpu::max_pooling_sums));
  library.impl("max_pooling_backward", TORCH_BOX(&sa_layers::cpu::max_pooling_backward));
}

#endif  // SA_LAYERS_ONCE
