// Aggregation and its gradients for every kernel size, stride, dilation and dtype: one thread per pixel or per weight,
// straight from global memory. The tiled kernels are faster where they are eligible.
#pragma once

#include <cstdint>

#include "cuda/aggregation/forward_tiles.cuh"
#include "cuda/aggregation/tile.cuh"
#include "cuda/common/element.cuh"
#include "cuda/common/launch.cuh"
#include "footprint.h"

namespace sa_layers::cuda {

constexpr int kBlockChannels = 8;  // per thread: each weight is read once for them

// Decodes a thread's index into its pixel, block of channels and weight map.
struct Work {
  int64_t pixel, image, weight_channel, weight_map;
  int64_t first, channel;  // the block's first channel: among those that share, and in the batch
  int count;

  __device__ Work(const Aggregation& problem, int64_t index, int64_t pixels) {
    const int64_t blocks = (problem.sharing(0) + kBlockChannels - 1) / kBlockChannels;
    pixel = index % pixels;
    weight_map = index / pixels / blocks;
    image = weight_map / problem.weight_channels;
    weight_channel = weight_map % problem.weight_channels;
    first = index / pixels % blocks * kBlockChannels;
    const int64_t left = problem.sharing(weight_channel) - first;
    count = left < kBlockChannels ? int(left) : kBlockChannels;
    channel = image * problem.channels + problem.first_channel(weight_channel) + first * problem.channel_step();
  }
  static int64_t threads(const Aggregation& problem, int64_t pixels) {
    return pixels * ceil_div<int64_t>(problem.sharing(0), kBlockChannels) * problem.weight_maps();
  }
};

template <typename T, bool kSoftmax>
__global__ void aggregation_general(Aggregation problem, int64_t threads, const T* __restrict__ value,
                                    const T* __restrict__ weight, T* __restrict__ output,
                                    Compute<T>* __restrict__ max_logits, Compute<T>* __restrict__ normalizers) {
  if (thread_index() >= threads) return;
  const Axis rows = problem.footprint.rows, columns = problem.footprint.columns;
  const int64_t pixels = problem.footprint.pixels(), output_pixels = problem.footprint.output_pixels();
  const Work work(problem, thread_index(), output_pixels);
  const int64_t row = work.pixel / columns.output_size(), column = work.pixel % columns.output_size();
  const T* const values = value + work.channel * pixels;
  const T* weights = weight + work.weight_map * problem.footprint.taps() * output_pixels + work.pixel;
  const Compute<T> scale = softmax_scale(problem.footprint.taps());
  Compute<T> maximum = -INFINITY, total = 0;
  if constexpr (kSoftmax) {
    for (int64_t tap = 0; tap < problem.footprint.taps(); ++tap) {
      const Compute<T> logit = widen(weights[tap * output_pixels]);
      maximum = logit > maximum ? logit : maximum;
    }
  }
  Compute<T> sums[kBlockChannels] = {};
  for (int64_t row_tap = 0; row_tap < rows.kernel; ++row_tap) {
    const int64_t value_row = rows.source(row, row_tap, problem.footprint.mode);
    for (int64_t column_tap = 0; column_tap < columns.kernel; ++column_tap, weights += output_pixels) {
      const int64_t value_column = columns.source(column, column_tap, problem.footprint.mode);
      Compute<T> tap_weight = widen(*weights);
      if constexpr (kSoftmax) {
        tap_weight = scale * exponential(tap_weight - maximum);
        total += tap_weight;
      }
      if (value_row < 0 || value_column < 0) continue;
      const T* from = values + value_row * columns.size + value_column;
#pragma unroll
      for (int channel = 0; channel < kBlockChannels; ++channel) {
        if (channel < work.count) {
          sums[channel] += tap_weight * widen(from[channel * problem.channel_step() * pixels]);
        }
      }
    }
  }
  T* const to = output + work.channel * output_pixels + work.pixel;
#pragma unroll
  for (int channel = 0; channel < kBlockChannels; ++channel) {
    if constexpr (kSoftmax) sums[channel] /= total;
    if (channel < work.count) narrow(sums[channel], to[channel * problem.channel_step() * output_pixels]);
  }
  if constexpr (kSoftmax) {
    if (work.first > 0) return;
    max_logits[work.weight_map * output_pixels + work.pixel] = maximum;
    normalizers[work.weight_map * output_pixels + work.pixel] = total / scale;
  }
}

// The gradient of one weight: the sum over the channels that share it.
template <typename T>
__device__ Compute<T> weight_gradient(const Aggregation& problem, int64_t weight_map, int64_t tap, int64_t pixel,
                                      const T* __restrict__ grad_output, const T* __restrict__ value) {
  const Axis &rows = problem.footprint.rows, &columns = problem.footprint.columns;
  const int64_t output_pixels = problem.footprint.output_pixels(), image = weight_map / problem.weight_channels;
  const int64_t value_row = rows.source(pixel / columns.output_size(), tap / columns.kernel, problem.footprint.mode);
  const int64_t value_column =
      columns.source(pixel % columns.output_size(), tap % columns.kernel, problem.footprint.mode);
  if (value_row < 0 || value_column < 0) return 0;
  Compute<T> sum = 0;
  const int64_t weight_channel = weight_map % problem.weight_channels, count = problem.sharing(weight_channel);
  const int64_t first = image * problem.channels + problem.first_channel(weight_channel);
  for (int64_t c = 0; c < count; ++c) {
    const int64_t channel = first + c * problem.channel_step();
    sum += widen(grad_output[channel * output_pixels + pixel]) *
           widen(value[channel * problem.footprint.pixels() + value_row * columns.size + value_column]);
  }
  return sum;
}

// A thread for each weight or, with a softmax, for all taps of an output pixel: the gradient of a logit needs those of
// all their weights, see aggregation_weight_gradient_tiles.
template <typename T, bool kSoftmax>
__global__ void aggregation_weight_gradient_general(Aggregation problem, int64_t threads, SoftmaxTensors<T> softmax,
                                                    const T* __restrict__ grad_output, const T* __restrict__ value,
                                                    T* __restrict__ grad_weight) {
  const int64_t index = thread_index();
  if (index >= threads) return;
  const int64_t output_pixels = problem.footprint.output_pixels(), taps = problem.footprint.taps();
  const int64_t pixel = index % output_pixels;
  if constexpr (kSoftmax) {
    const int64_t weight_map = index / output_pixels;
    const Compute<T> maximum = softmax.max_logits[index], normalizer = softmax.normalizers[index];
    const auto weight_at = [&](int64_t tap) {
      const int64_t at = (weight_map * taps + tap) * output_pixels + pixel;
      return exponential(widen(softmax.logits[at]) - maximum) / normalizer;
    };
    Compute<T> mean = 0;
    for (int64_t tap = 0; tap < taps; ++tap) {
      mean += weight_at(tap) * weight_gradient(problem, weight_map, tap, pixel, grad_output, value);
    }
    for (int64_t tap = 0; tap < taps; ++tap) {
      const Compute<T> gradient = weight_gradient(problem, weight_map, tap, pixel, grad_output, value);
      narrow(weight_at(tap) * (gradient - mean), grad_weight[(weight_map * taps + tap) * output_pixels + pixel]);
    }
  } else {
    narrow(
        weight_gradient(problem, index / output_pixels / taps, index / output_pixels % taps, pixel, grad_output, value),
        grad_weight[index]);
  }
}

// Iterates over the output pixels and taps that read a pixel, along one axis:
//   for (Readers readers(...); readers.left(); readers.next()) use(readers.tap, readers.output);
struct Readers {
  const Axis& axis;
  Images images;
  int64_t tap = -1, output = 0;
  // Under kClamp, the centres of windows that may read `pixel`: those within a reach of it, a dilation apart.
  bool clamped;
  int64_t pixel, centre;

  __device__ Readers(const Axis& axis_, Padding mode, int64_t pixel_)
      : axis(axis_),
        images(int(pixel_), int(axis_.size), mode == Padding::kReflect ? int(axis_.padding()) : 0),
        clamped(mode == Padding::kClamp),
        pixel(pixel_),
        centre(pixel_ - axis_.kernel * axis_.dilation) {
    next();
  }
  __device__ bool left() const { return clamped ? centre <= pixel + axis.reach() : images.left(); }
  __device__ void next() {
    if (clamped) return next_clamped();
    for (; images.left(); images.next(), tap = -1) {
      while (++tap < axis.kernel) {
        const int64_t first_tap =
            images.position + axis.padding() - tap * axis.dilation;  // the output times the stride
        output = first_tap / axis.stride;
        if (first_tap >= 0 && first_tap % axis.stride == 0 && output < axis.output_size()) return;
      }
    }
  }
  __device__ void next_clamped() {
    for (centre += axis.dilation; left(); centre += axis.dilation) {
      if (centre < 0 || centre >= axis.size || centre % axis.stride != 0) continue;
      output = centre / axis.stride;
      tap = (pixel - axis.window(output)) / axis.dilation;  // without a remainder
      if (tap >= 0 && tap < axis.kernel) return;
    }
  }
};

template <typename T, bool kSoftmax>
__global__ void aggregation_value_gradient_general(Aggregation problem, int64_t threads, SoftmaxTensors<T> softmax,
                                                   const T* __restrict__ grad_output, const T* __restrict__ weight,
                                                   T* __restrict__ grad_value) {
  if (thread_index() >= threads) return;
  const Axis rows = problem.footprint.rows, columns = problem.footprint.columns;
  const int64_t pixels = problem.footprint.pixels(), output_pixels = problem.footprint.output_pixels();
  const Work work(problem, thread_index(), pixels);
  const T* const gradients = grad_output + work.channel * output_pixels;
  const T* const weights = weight + work.weight_map * problem.footprint.taps() * output_pixels;
  Compute<T> sums[kBlockChannels] = {};
  for (Readers row(rows, problem.footprint.mode, work.pixel / columns.size); row.left(); row.next()) {
    for (Readers column(columns, problem.footprint.mode, work.pixel % columns.size); column.left(); column.next()) {
      const int64_t pixel = row.output * columns.output_size() + column.output;
      Compute<T> tap_weight = widen(weights[(row.tap * columns.kernel + column.tap) * output_pixels + pixel]);
      if constexpr (kSoftmax) {
        const int64_t at = work.weight_map * output_pixels + pixel;
        tap_weight = exponential(tap_weight - softmax.max_logits[at]) / softmax.normalizers[at];
      }
#pragma unroll
      for (int channel = 0; channel < kBlockChannels; ++channel) {
        if (channel < work.count) {
          sums[channel] += tap_weight * widen(gradients[channel * problem.channel_step() * output_pixels + pixel]);
        }
      }
    }
  }
  T* const to = grad_value + work.channel * pixels + work.pixel;
#pragma unroll
  for (int channel = 0; channel < kBlockChannels; ++channel) {
    if (channel < work.count) narrow(sums[channel], to[channel * problem.channel_step() * pixels]);
  }
}

}  // namespace sa_layers::cuda
