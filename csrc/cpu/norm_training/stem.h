// The stem in training, as its kernels are asked to compute it: a linear layer of an image's few channels, the norm in
// its coefficients, a ReLU and 2x2 max-pooling.
#pragma once

#include "cpu/norm_training/problem.h"

namespace sa_layers::cpu {

constexpr int64_t kMaxImageChannels = 8;

// The channels that a kernel is compiled for, of which an image may lack some.
inline int64_t stem_inputs(int64_t in_channels) { return in_channels <= 3 ? 3 : in_channels <= 4 ? 4 : 8; }

// Planes, (N, channels, pixels).
template <typename T>
struct Planes {
  const T* data;
  int64_t channels, pixels;
};

// Means, and the sums of products of two channels' deviations from them, over `count` pixels.
struct ImageMoments {
  double count = 0, mean[kMaxImageChannels] = {}, products[kMaxImageChannels][kMaxImageChannels] = {};

  // Chan's formula. Products of a channel with an earlier one are not computed.
  void merge(const ImageMoments& other, int64_t channels) {
    if (other.count == 0) return;
    const double all = count + other.count, share = other.count / all, weight = count * share;
    double delta[kMaxImageChannels];
    for (int64_t i = 0; i < channels; ++i) delta[i] = other.mean[i] - mean[i];
    for (int64_t i = 0; i < channels; ++i) {
      mean[i] += share * delta[i];
      for (int64_t j = i; j < channels; ++j) products[i][j] += other.products[i][j] + weight * delta[i] * delta[j];
    }
    count = all;
  }
};

template <typename T>
struct StemBackward {
  const T* image;  // (N, in_channels, height, width)
  int64_t in_channels, height, width;
  Map<const T> grad;  // of the output, (N, height / 2, width / 2, channels)
  int64_t channels;
  const Compute<T>*weight, *shift;  // (kInputs, channels), padded with zeros; (channels,)
  const Compute<T>* center;         // (kInputs,)

  int64_t out_height() const { return height / 2; }
  int64_t out_width() const { return width / 2; }
};

}  // namespace sa_layers::cpu
