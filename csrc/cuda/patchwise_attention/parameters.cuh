// The mapping of patchwise attention, read from the parameters as modules hold them: the norm between the layers
// becomes part of the hidden layer. Its kernels read a mapping that was rearranged from these numbers at the same call,
// so that nothing is kept that a write to a parameter could make stale.
#pragma once

#include <cstdint>

#include "cuda/common/element.cuh"
#include "cuda/common/layer_parameter.cuh"
#include "cuda/patchwise_attention/problem.h"
#include "footprint.h"

namespace sa_layers::cuda {

// A feature is a channel of a tap, as PatchwiseAttention::feature_taps counts them; an output is a tap of a weight.
template <typename T>
struct PatchwiseParameters {
  using C = Compute<T>;
  PatchwiseAttention problem;
  PatchwiseAttentionTensors tensors;

  __device__ C scale(int tap, int channel) const { return norm(tensors.scales[0])[feature(tap, channel)]; }
  __device__ C shift(int tap, int channel) const { return norm(tensors.shifts[0])[feature(tap, channel)]; }
  __device__ C hidden_weight(int tap, int channel, int hidden) const {
    const int64_t features = int64_t(problem.feature_taps()) * problem.feature_channels();
    return norm(tensors.scales[1])[hidden] *
           load_number<T>(tensors.weights[0], hidden * features + feature(tap, channel));
  }
  __device__ C hidden_bias(int hidden) const {
    return norm(tensors.scales[1])[hidden] * load_number<T>(tensors.biases[0], hidden) +
           norm(tensors.shifts[1])[hidden];
  }
  __device__ C weight(int hidden, int tap, int weight) const {
    return load_number<T>(tensors.weights[1], output(tap, weight) * problem.weight_channels + hidden);
  }
  __device__ C bias(int tap, int weight) const { return load_number<T>(tensors.biases[1], output(tap, weight)); }

 private:
  __device__ static const C* norm(const void* numbers) { return static_cast<const C*>(numbers); }
  // The query's channels are first; the taps of a channel of the key are contiguous.
  __device__ int64_t feature(int tap, int channel) const {
    if (tap == 0) return channel;
    return problem.relation_channels + channel * problem.footprint.taps() + tap - 1;
  }
  __device__ int64_t output(int tap, int weight) const { return weight * problem.footprint.taps() + tap; }
};

}  // namespace sa_layers::cuda
