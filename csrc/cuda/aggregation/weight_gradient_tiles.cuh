// The gradient of aggregation's weight at stride 1 and dilation 1, tile by tile: the gradient of each weight is summed
// over the channels in registers and written once. With a softmax it is summed twice: its Jacobian needs the sum over
// all taps of weight * gradient of the weight. Sums of one line of taps fit the registers, those of all taps do not.
#pragma once

#include <cstdint>

#include "cuda/aggregation/forward_tiles.cuh"
#include "cuda/aggregation/tile.cuh"
#include "cuda/aggregation/tiling.h"
#include "cuda/common/element.cuh"
#include "cuda/common/shared_memory.cuh"
#include "footprint.h"

namespace sa_layers::cuda {

// With a softmax, the gradient of its logits.
template <typename T, int kKernel, bool kSoftmax>
__global__ void __launch_bounds__(kThreads, kBlocks<kSoftmax>)
    aggregation_weight_gradient_tiles(AggregationTiles problem, SoftmaxTensors<T> softmax,
                                      const T* __restrict__ grad_output, const T* __restrict__ value,
                                      T* __restrict__ grad_weight) {
  const Tiling& tiling = problem.tiling;
  const Tile tile = tile_of_block(tiling);
  const Group group = group_of_thread(tiling, tile);
  float* const copy = shared_memory();
  copy_tile<kKernel>(
      tiling, tile, problem.channels, value, 0, problem.sharing, problem.reflecting, [](int64_t, int) { return 1.0f; },
      copy);
  __syncthreads();
  if (group.count == 0) return;

  const float* const place = copy + group.place(tiling);
  const int64_t map = tile.first_map + group.map;
  const int offset = group.offset(tiling, tile);
  const int count = problem.channels.count(map);
  const int64_t first_channel = problem.channels.begin(map) + offset;
  const int64_t first_weight = map * kKernel * kKernel * tiling.pixels() + offset;
  const auto load_channel = [&](const T* maps, int channel, float (&to)[kGroup]) {
    load_group(maps + first_channel + channel * problem.channels.step(), tiling, group.count, to);
  };

  float gradients[kChannels][kGroup];  // of the first channels; those of others are read again for every line of taps
#pragma unroll
  for (int channel = 0; channel < kChannels; ++channel) {
    if (channel < count) load_channel(grad_output, channel, gradients[channel]);
  }

  float max_logits[kGroup], factors[kGroup], mean[kGroup] = {};
  if constexpr (kSoftmax) {
    load_group(softmax.max_logits + map * tiling.pixels() + offset, tiling, group.count, max_logits);
    load_group(softmax.normalizers + map * tiling.pixels() + offset, tiling, group.count, factors);
#pragma unroll
    for (int i = 0; i < kGroup; ++i) factors[i] = 1 / factors[i];
  }

#pragma unroll 1
  for (int pass = kSoftmax ? 0 : 1; pass < 2; ++pass) {
#pragma unroll 1
    for (int across = 0; across < kKernel; ++across) {
      float sums[kKernel][kGroup] = {};
      const auto add_channel = [&](int channel, const float (&gradient)[kGroup]) {
        const Window<kKernel> window(place + channel * tiling.channel_size() + across * tiling.pitch());
#pragma unroll
        for (int along = 0; along < kKernel; ++along) {
#pragma unroll
          for (int i = 0; i < kGroup; ++i) sums[along][i] += gradient[i] * window[i + along];
        }
      };
#pragma unroll
      for (int channel = 0; channel < kChannels; ++channel) {
        if (channel < count) add_channel(channel, gradients[channel]);
      }
#pragma unroll 1
      for (int channel = kChannels; channel < count; ++channel) {
        float gradient[kGroup];
        load_channel(grad_output, channel, gradient);
        add_channel(channel, gradient);
      }
#pragma unroll
      for (int along = 0; along < kKernel; ++along) {
        const int64_t at = first_weight + across * tiling.tap_across_step() + along * tiling.tap_along_step();
        if constexpr (kSoftmax) {
          float weights[kGroup];
          load_group(softmax.logits + at, tiling, group.count, weights);
#pragma unroll
          for (int i = 0; i < kGroup; ++i) {
            const float weight = exponential(weights[i] - max_logits[i]) * factors[i];
            if (pass == 0) mean[i] += weight * sums[along][i];
            sums[along][i] = weight * (sums[along][i] - mean[i]);
          }
        }
        if (pass == 1) store_group(sums[along], tiling, group.count, grad_weight + at);
      }
    }
  }
}

}  // namespace sa_layers::cuda
