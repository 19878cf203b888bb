// The gradient of aggregation's value at stride 1 and dilation 1, tile by tile, without atomic additions.
#pragma once

#include <cstdint>

#include "cuda/aggregation/forward_tiles.cuh"
#include "cuda/aggregation/tile.cuh"
#include "cuda/aggregation/tiling.h"
#include "cuda/common/element.cuh"
#include "cuda/common/pack.cuh"
#include "cuda/common/shared_memory.cuh"
#include "footprint.h"

namespace sa_layers::cuda {

// For every pixel of the tile, sums over the padded pixels that reflect to it.
template <typename T>
__device__ void fold_tile(const AggregationTiles& problem, const Tile& tile, int first, int count, const float* sums,
                          T* grad_value) {
  const Tiling& tiling = problem.tiling;
  const int first_line = tile.first_line < 0 ? 0 : tile.first_line;
  const int first_pixel = tile.first_pixel < 0 ? 0 : tile.first_pixel;
  const int lines = min(tile.first_line + tile.lines, tiling.lines) - first_line;
  const int pixels = min(tile.first_pixel + tile.pixels, tiling.length) - first_pixel;
  const int places = lines * pixels;
  for (int index = int(threadIdx.x); index < tile.maps * places; index += int(blockDim.x)) {
    const int map = index / places, line = first_line + index % lines;
    const int pixel = first_pixel + index % places / lines;
    const int64_t weight_map = tile.first_map + map;
    const int own = min(problem.channels.count(weight_map) - first, count);
    const float* const from = sums + map * tiling.channels * tiling.channel_size();
    T* const to = grad_value + problem.channels.begin(weight_map) + first * problem.channels.step() +
                  line * tiling.line_step() + pixel * tiling.pixel_step();
    for (int channel = 0; channel < own; ++channel) {
      float sum = 0.0f;
      for (Images shown_line(line, tiling.lines, tiling.flank); shown_line.left(); shown_line.next()) {
        const float* const place = from + channel * tiling.channel_size() +
                                   (shown_line.position - tile.first_line) * tiling.pitch() - tile.first_pixel;
        for (Images shown_pixel(pixel, tiling.length, tiling.flank); shown_pixel.left(); shown_pixel.next()) {
          sum += place[shown_pixel.position];
        }
      }
      narrow(sum, to[channel * problem.channels.step()]);
    }
  }
}

// A gather: each padded pixel sums over the output pixels whose footprints cover it, then each pixel of the map over
// the padded pixels that reflect to it. Both sums have a fixed order. Lines are columns here, since the weights of a
// padded pixel are one pixel apart from tap to tap, so that groups of them are never aligned.
template <typename T, int kKernel, bool kSoftmax>
__global__ void __launch_bounds__(kThreads, kBlocks<kSoftmax || kKernel == 7>)
    aggregation_value_gradient_tiles(AggregationTiles problem, SoftmaxTensors<T> softmax,
                                     const T* __restrict__ grad_output, const T* __restrict__ weight,
                                     T* __restrict__ grad_value) {
  constexpr int kReach = kKernel / 2, kPositions = kGroup + kKernel - 1;
  const Tiling& tiling = problem.tiling;
  const Tile tile = tile_of_block(tiling);
  const Group group = group_of_thread(tiling, tile);
  float* const copy = shared_memory();
  float* const place = copy + group.place(tiling);
  const int64_t map = tile.first_map + group.map;
  // The output pixels whose footprints cover the group are on lines up to `last_line`, at kPositions positions.
  const int last_line = tile.first_line + group.line + kReach, first_position = tile.first_pixel + group.pixel - kReach;
  const T* const weights = weight + map * kKernel * kKernel * tiling.pixels();
  const Compute<T>* const max_logits = kSoftmax ? softmax.max_logits + map * tiling.pixels() : nullptr;
  const auto is_inside = [&](int position) { return unsigned(first_position + position) < unsigned(tiling.length); };

  for (int first = 0; first < problem.sharing; first += kChannels) {
    const int count = min(kChannels, problem.sharing - first);
    if (first > 0) __syncthreads();  // the previous sums are read
    copy_tile<kKernel>(
        tiling, tile, problem.channels, grad_output, first, count, false,
        [&](int64_t weight_map, int offset) {
          // The gradients are divided by the normalizers instead of every weight.
          return kSoftmax ? 1 / float(softmax.normalizers[weight_map * tiling.pixels() + offset]) : 1.0f;
        },
        copy);
    __syncthreads();

    float sums[kChannels][kGroup] = {};
#pragma unroll 1
    for (int across = 0; across < kKernel; ++across) {
      const int line = last_line - across;
      if (group.count == 0 || line < 0 || line >= tiling.lines) continue;
      const int at = line * tiling.line_step() + first_position * tiling.pixel_step();
      float maxima[kPositions];
      if constexpr (kSoftmax) {
#pragma unroll
        for (int i = 0; i < kPositions; ++i) {
          maxima[i] = is_inside(i) ? max_logits[at + i * tiling.pixel_step()] : 0.0f;
        }
      }
      float tap_weights[kKernel][kGroup];
#pragma unroll
      for (int along = 0; along < kKernel; ++along) {
        const T* const from = weights + across * tiling.tap_across_step() + along * tiling.tap_along_step() + at;
#pragma unroll
        for (int i = 0; i < kGroup; ++i) {
          const int position = i + kKernel - 1 - along;
          float number = 0;
          if (is_inside(position)) {
            number = widen(from[position * tiling.pixel_step()]);
            if constexpr (kSoftmax) number = exponential(number - maxima[position]);
          }
          tap_weights[along][i] = number;
        }
      }
#pragma unroll
      for (int channel = 0; channel < kChannels; ++channel) {
        if (channel >= count) break;
        const Window<kKernel> window(place + channel * tiling.channel_size() + (kKernel - 1 - across) * tiling.pitch());
#pragma unroll
        for (int along = 0; along < kKernel; ++along) {
#pragma unroll
          for (int i = 0; i < kGroup; ++i) sums[channel][i] += tap_weights[along][i] * window[i + kKernel - 1 - along];
        }
      }
    }
    __syncthreads();  // the copy is read; the sums overwrite it
    if (group.count > 0) {
#pragma unroll
      for (int channel = 0; channel < kChannels; ++channel) {
        if (channel >= count) break;
        Pack<float, 4> pack;
#pragma unroll
        for (int i = 0; i < kGroup; ++i) pack[i] = sums[channel][i];
        *reinterpret_cast<Pack<float, 4>*>(place + channel * tiling.channel_size()) = pack;
      }
    }
    __syncthreads();
    fold_tile(problem, tile, first, count, copy, grad_value);
  }
}

}  // namespace sa_layers::cuda
