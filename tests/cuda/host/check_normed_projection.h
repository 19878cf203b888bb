// The linear layer behind a norm and a ReLU, of sizes with a kernel and of some without.
#pragma once

#include "buffer.h"
#include "cuda/linear/launch.h"

namespace sa_layers::cuda {

// One channel of one pixel is NaN, and then all results of this pixel must be.
template <typename T>
bool check_normed_projection(int64_t pixels, int64_t channels, int64_t out_channels, Element element) {
  Buffer<T> features(pixels * channels, 0), weight(channels * out_channels, 0), bias(out_channels, 1);
  Buffer<T> result(pixels * out_channels, 0);
  Buffer<float> scale(channels, 1), shift(channels, 1);
  features.randomise(), weight.randomise(), bias.randomise(), scale.randomise(), shift.randomise(), result.forget();
  Expected expected(result.size());
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    for (int64_t d = 0; d < out_channels; ++d) {
      const int64_t at = pixel * out_channels + d;
      expected.add(at, widen(bias.data()[d]));
      for (int64_t c = 0; c < channels; ++c) {
        const double sum = double(scale.data()[c]) * widen(features.data()[pixel * channels + c]) + shift.data()[c];
        T activated;
        narrow(float(sum > 0 ? sum : 0), activated);
        expected.add(at, double(widen(activated)) * widen(weight.data()[c * out_channels + d]));
      }
    }
  }
  const int64_t odd = pick(0, int(pixels) - 1);
  narrow(std::numeric_limits<float>::quiet_NaN(), features.data()[odd * channels + pick(0, int(channels) - 1)]);
  const NormedProjection problem = {pixels,      channels,     out_channels, features.data(), weight.data(),
                                    bias.data(), scale.data(), shift.data(), result.data()};
  bool launched = false;
  if (launch_normed_projection(problem, element, nullptr, launched)) return false;
  const bool fits = pixels >= 32 && channels <= 256 && channels % 32 == 0 && emulation::architecture >= 80 &&
                    (out_channels == 24 || out_channels == 48 || out_channels == 96);
  if (launched != fits) std::printf("normed_projection: launched %d, expected %d\n", launched, fits);
  if (!launched || !fits) return launched == fits;
  for (int64_t at = odd * out_channels; at < (odd + 1) * out_channels; ++at) {
    if (!std::isnan(double(widen(result.data()[at])))) return false;
    narrow(float(expected.sum[at]), result.data()[at]);
  }
  return agrees("normed_projection", result, expected);
}

// Warps with several tiles or with none, a partial last tile, sizes without a kernel.
inline bool check_normed_projections(int problems) {
  const int64_t widths[] = {24, 48, 96, 40};
  for (int i = 0; i < problems; ++i) {
    const int64_t pixels = i % 4 == 3 ? pick(1, 40) : pick(32, 700), channels = i % 8 ? 32 * pick(1, 8) : pick(1, 300);
    const int64_t out_channels = widths[i % 8 == 7 ? 3 : i % 3];
    emulation::shared_limit = 227 * 1024, emulation::multiprocessors = pick(1, 4);
    emulation::architecture = i % 16 == 5 ? 75 : 90;
    if (check_normed_projection<__half>(pixels, channels, out_channels, Element::kFloat16) &&
        check_normed_projection<__nv_bfloat16>(pixels, channels, out_channels, Element::kBFloat16)) {
      continue;
    }
    std::printf("pixels %ld, channels %ld to %ld, %d multiprocessors\n", long(pixels), long(channels),
                long(out_channels), emulation::multiprocessors);
    return false;
  }
  return true;
}

}  // namespace sa_layers::cuda
