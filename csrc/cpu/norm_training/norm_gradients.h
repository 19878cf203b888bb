// What the backward passes of a norm have in common, with and without a pooling: sums of bands, and the factors of the
// gradient.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/norm_training/rows.h"

namespace sa_layers::cpu {

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

inline void check_factors(const Tensor& factors, int64_t channels) {
  const bool has_statistics = factors.dim() != 2 || factors.size(0) != 1;
  check_float64("factors", factors, {has_statistics ? 3 : 1, channels});
}

}  // namespace sa_layers::cpu
