// Aggregation at stride 1 and dilation 1, tile by tile: each weight is read from global memory once for up to kChannels
// channels that share it. With kSoftmax the weights are logits, normalized by an online softmax; its maximum and its
// normalizer are kept for the gradients. They stay apart: their logsumexp would lose the bits of the normalizer beside
// a large maximum.
#pragma once

#include <cstdint>

#include "cuda/aggregation/tile.cuh"
#include "cuda/aggregation/tiling.h"
#include "cuda/common/element.cuh"
#include "cuda/common/shared_memory.cuh"
#include "footprint.h"

namespace sa_layers::cuda {

constexpr int kChannels = 8;  // whose sums a thread keeps in registers
// Resident blocks per multiprocessor, at least: bounds the registers of a thread to 128, or to 168 for kernels that
// need more.
template <bool kLarge>
constexpr int kBlocks = kLarge ? 3 : 4;

struct AggregationTiles {
  Tiling tiling;
  Channels channels;
  int sharing;      // the largest number of channels that share a weight map
  bool reflecting;  // otherwise zero padding
};

// Further operands of the gradients' kernels where the weights are a softmax of logits, (N, Cw, Kh * Kw, Ho * Wo): of
// each pixel the maximum over the taps, and the sum of exp(logit - maximum), both (N, Cw, Ho * Wo).
template <typename T>
struct SoftmaxTensors {
  const T* logits;
  const Compute<T>* max_logits;
  const Compute<T>* normalizers;
};

// The power of two that an unnormalized softmax over the taps is multiplied by, so that its weighted sums overflow no
// sooner than an average.
SA_LAYERS_HOST_DEVICE constexpr float softmax_scale(int64_t taps) { return 1.0f / (int64_t{1} << ceil_log2(taps)); }

// An online softmax over the lines of taps.
template <int kKernel>
struct OnlineSoftmax {
  float maximum[kGroup], total[kGroup];

  __device__ OnlineSoftmax() {
#pragma unroll
    for (int i = 0; i < kGroup; ++i) maximum[i] = -INFINITY, total[i] = 0;
  }
  // Turns the next line of logits into weights relative to the maximum so far, and rescales `sums` to it.
  __device__ void add(float (&line)[kKernel][kGroup], float (&sums)[kChannels][kGroup]) {
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      float next = maximum[i];
#pragma unroll
      for (int along = 0; along < kKernel; ++along) next = fmaxf(next, line[along][i]);
      const float shift = next == -INFINITY ? 0.0f : next;  // every tap so far is masked
      const float scale = exponential(maximum[i] - shift);
      maximum[i] = next;
      total[i] *= scale;
#pragma unroll
      for (int channel = 0; channel < kChannels; ++channel) sums[channel][i] *= scale;
#pragma unroll
      for (int along = 0; along < kKernel; ++along) {
        line[along][i] = exponential(line[along][i] - shift);
        total[i] += line[along][i];
      }
    }
  }
};

template <typename T, int kKernel, bool kSoftmax>
__global__ void __launch_bounds__(kThreads, kBlocks<kSoftmax>)
    aggregation_tiles(AggregationTiles problem, const T* __restrict__ value, const T* __restrict__ weight,
                      T* __restrict__ output, Compute<T>* __restrict__ max_logits,
                      Compute<T>* __restrict__ normalizers) {
  constexpr float kScale = kSoftmax ? softmax_scale(kKernel * kKernel) : 1.0f;
  const Tiling& tiling = problem.tiling;
  const Tile tile = tile_of_block(tiling);
  const Group group = group_of_thread(tiling, tile);
  float* const copy = shared_memory();
  const float* const place = copy + group.place(tiling);
  const int64_t map = tile.first_map + group.map;
  const int offset = group.offset(tiling, tile);
  const T* const weights = weight + map * kKernel * kKernel * tiling.pixels() + offset;

  for (int first = 0; first < problem.sharing; first += kChannels) {
    const int count = min(kChannels, problem.sharing - first);
    if (first > 0) __syncthreads();  // the previous channels are read
    copy_tile<kKernel>(
        tiling, tile, problem.channels, value, first, count, problem.reflecting, [](int64_t, int) { return kScale; },
        copy);
    __syncthreads();
    if (group.count == 0) continue;

    OnlineSoftmax<kKernel> online;
    float sums[kChannels][kGroup] = {};
#pragma unroll 1
    for (int across = 0; across < kKernel; ++across) {
      float tap_weights[kKernel][kGroup];
#pragma unroll
      for (int along = 0; along < kKernel; ++along) {
        load_group(weights + across * tiling.tap_across_step() + along * tiling.tap_along_step(), tiling, group.count,
                   tap_weights[along]);
      }
      if constexpr (kSoftmax) online.add(tap_weights, sums);
#pragma unroll
      for (int channel = 0; channel < kChannels; ++channel) {
        if (channel >= count) break;
        const Window<kKernel> window(place + channel * tiling.channel_size() + across * tiling.pitch());
#pragma unroll
        for (int along = 0; along < kKernel; ++along) {
#pragma unroll
          for (int i = 0; i < kGroup; ++i) sums[channel][i] += tap_weights[along][i] * window[i + along];
        }
      }
    }
    float factors[kGroup];
    if constexpr (kSoftmax) {
#pragma unroll
      for (int i = 0; i < kGroup; ++i) factors[i] = (1 / kScale) / online.total[i];
    }
    const int own = problem.channels.count(map) - first;
    T* const to = output + problem.channels.begin(map) + first * problem.channels.step() + offset;
#pragma unroll
    for (int channel = 0; channel < kChannels; ++channel) {
      if (channel >= own) break;
      if constexpr (kSoftmax) {
#pragma unroll
        for (int i = 0; i < kGroup; ++i) sums[channel][i] *= factors[i];
      }
      store_group(sums[channel], tiling, group.count, to + channel * problem.channels.step());
    }
    if constexpr (kSoftmax) {
      if (first > 0) continue;
      store_group(online.maximum, tiling, group.count, max_logits + map * tiling.pixels() + offset);
      store_group(online.total, tiling, group.count, normalizers + map * tiling.pixels() + offset);
    }
  }
}

}  // namespace sa_layers::cuda
