// How the general kernel of pairwise attention is cut into blocks, and how a block divides its shared memory. Plain
// C++.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <initializer_list>

#include "cuda/banded/plan.h"
#include "cuda/common/block_sizes.h"
#include "cuda/common/plan.h"
#include "cuda/pairwise_attention/problem.h"
#include "footprint.h"

namespace sa_layers::cuda {

// Packs of four accumulators per thread: a block of 256 threads holds kMostValueChannels.
constexpr int kAttentionPacks = 4;

// An output pixel.
struct Centre {
  int64_t image;
  int row, column;
};

// The pixel that a tap reads: the offsets of its key and value, its row and column; all -1 beyond the border.
struct Neighbour {
  int64_t key, value;
  int row, column;
};

// A block has some output pixels and processes some taps of all of them per round: each pair of a pixel and a tap is a
// row of `features`, which the mapping's layers transform. Offsets are bytes in shared memory.
struct PairwiseAttentionPlan {
  int pixels, taps;  // 0 pixels if nothing fits
  int logits;        // per pair: the mapping's outputs; one or two are repeated to fill four
  int widths[kMappingLayers + 1], strides[kMappingLayers + 1];  // of the rows, in whole vectors
  // The weights of a layer are copied in slices of `columns` outputs. Resident weights are a single slice, copied once.
  int columns[kMappingLayers], strides_of_weights[kMappingLayers];
  bool resident;
  int centres, neighbours, features[2], weights[kMappingLayers], maximum, total, correction;
  int64_t shared_bytes;

  int rows() const { return pixels * taps; }
};

namespace planning {

// Cuts a layer into slices of `columns` outputs and returns the bytes of one.
inline int64_t slice(PairwiseAttentionPlan& plan, const ProductTypes& numbers, int layer, int columns) {
  const int width = plan.widths[layer + 1];
  plan.columns[layer] = width < columns ? width : columns;
  if (numbers.tensor_cores) {
    plan.strides_of_weights[layer] = plan.strides[layer];
    return int64_t(round_up(plan.columns[layer], 8)) * plan.strides[layer] * numbers.factor_bytes;
  }
  plan.strides_of_weights[layer] = row_stride(plan.columns[layer]);
  return int64_t(plan.widths[layer]) * plan.strides_of_weights[layer] * numbers.factor_bytes;
}

// Lays out shared memory after `weight_bytes` of weights.
inline void lay_out(PairwiseAttentionPlan& plan, int layers, const ProductTypes& numbers, int64_t weight_bytes) {
  int64_t used = weight_bytes;
  const auto take = [&](int64_t bytes) {
    const int64_t offset = used;
    used += (bytes + 15) / 16 * 16;
    return int(offset);
  };
  int widest[2] = {0, 0};
  for (int layer = 0; layer <= layers; ++layer) {
    const int bytes = plan.strides[layer] * (layer < layers ? numbers.factor_bytes : numbers.sum_bytes);
    if (bytes > widest[layer % 2]) widest[layer % 2] = bytes;
  }
  for (int i = 0; i < 2; ++i) plan.features[i] = take(int64_t(plan.rows()) * widest[i]);
  for (int* state : {&plan.maximum, &plan.total, &plan.correction}) {
    *state = take(int64_t(plan.pixels) * plan.logits * numbers.sum_bytes);
  }
  plan.centres = take(plan.pixels * int64_t(sizeof(Centre)));
  plan.neighbours = take(plan.rows() * int64_t(sizeof(Neighbour)));
  plan.shared_bytes = used;
}

// Up to `rows` pairs per round, of up to `pixels` pixels; rounds have about the same number of taps.
inline void choose_rows(PairwiseAttentionPlan& plan, int64_t taps, int64_t pixels, int rows) {
  plan.pixels = int(pixels < rows ? pixels : rows);
  const int64_t at_once = rows / plan.pixels < taps ? rows / plan.pixels : taps;
  const int64_t rounds = ceil_div(taps, at_once);
  plan.taps = int(ceil_div(taps, rounds));
}

// The pixels of a block, up to `pixels`, that avoid a last wave of few blocks, where `blocks` run concurrently.
inline int64_t spread_evenly(int64_t output_pixels, int64_t pixels, int64_t blocks) {
  const int64_t rounds = ceil_div(output_pixels, pixels * blocks);
  return ceil_div(output_pixels, rounds * blocks);
}

}  // namespace planning

// A plan for blocks of up to `shared_limit` bytes; its `pixels` is 0 if none fits.
inline PairwiseAttentionPlan plan_pairwise_attention(const PairwiseAttention& problem, const ProductTypes& numbers,
                                                     int64_t shared_limit, int64_t multiprocessors,
                                                     int threads = kAttentionThreads) {
  PairwiseAttentionPlan plan = {};
  const int weight_channels = problem.weight_channels();
  plan.logits = weight_channels <= 2 ? 4 : weight_channels;
  int widest = 4;
  for (int layer = 0; layer <= problem.layers; ++layer) {
    const bool is_last = layer == problem.layers;
    const int piece = is_last ? 4 : numbers.vector();
    plan.widths[layer] = round_up(is_last ? plan.logits : problem.widths[layer], piece);
    plan.strides[layer] =
        is_last && numbers.tensor_cores ? sums_stride(plan.widths[layer]) : row_stride(plan.widths[layer], piece);
    if (layer > 0 && plan.widths[layer] > widest) widest = plan.widths[layer];
  }
  // As many pixels as registers hold the sums of, but enough blocks to fill the GPU.
  int64_t pixels = threads * kAttentionPacks / packs_of(problem.value_channels);
  if (pixels == 0) return {};
  const int64_t share = problem.output_pixels() / (2 * multiprocessors);
  if (pixels > share) pixels = share > 0 ? share : 1;
  // Enough rows to give every thread one tile of the widest layer, or every warp two.
  const int wanted = numbers.tensor_cores ? kWarpRows * kWarpColumns * 2 * (threads / 32) / widest
                                          : tile_rows(numbers.factor_bytes) * 4 * threads / widest;
  const int fewest = numbers.tensor_cores ? 2 * kWarpRows : 32;
  const int most_rows = wanted < fewest ? fewest : wanted > 1024 ? 1024 : wanted;
  const auto fits = [&](int64_t pixels_at_most, int rows, int64_t weight_bytes, int64_t limit) {
    planning::choose_rows(plan, problem.footprint.taps(), pixels_at_most, rows);
    planning::lay_out(plan, problem.layers, numbers, weight_bytes);
    return plan.shared_bytes <= limit;
  };

  plan.resident = true;
  int64_t all_weights = 0;
  for (int layer = 0; layer < problem.layers; ++layer) {
    plan.weights[layer] = int(all_weights);
    all_weights += planning::slice(plan, numbers, layer, plan.widths[layer + 1]);
  }
  if (numbers.tensor_cores) {
    // Two resident blocks, one of which computes while the other waits, as long as their warps have tiles.
    constexpr int64_t kReserved = 1024;  // per block, by the system
    const int64_t even = planning::spread_evenly(problem.output_pixels(), pixels, 2 * multiprocessors);
    for (int rows = most_rows; rows >= fewest && rows >= most_rows / 4; rows /= 2) {
      if (fits(even, rows, all_weights, (shared_limit + kReserved) / 2 - kReserved)) return plan;
    }
  }
  for (int rows = most_rows; rows >= 32; rows /= 2) {
    if (fits(pixels, rows, all_weights, shared_limit)) return plan;
  }
  plan.resident = false;
  for (int rows = most_rows; rows >= 1; rows /= 2) {
    // Slices of at least 32 outputs, as long as rows can be reduced.
    for (int columns = 128; columns >= (rows > 8 ? 32 : numbers.tensor_cores ? 8 : 4); columns /= 2) {
      int64_t largest = 0;
      for (int layer = 0; layer < problem.layers; ++layer) {
        plan.weights[layer] = 0;
        const int64_t bytes = planning::slice(plan, numbers, layer, columns);
        if (bytes > largest) largest = bytes;
      }
      if (fits(pixels, rows, largest, shared_limit)) return plan;
    }
  }
  return {};
}

// What an implementation is asked about, and the plans that eligible ones make.
struct PairwiseAttentionCall {
  const PairwiseAttention& problem;
  Element element;
  const PairwiseAttentionTensors* tensors;  // with a folded mapping; null: alignment is assumed
  const DeviceLimits* device;               // null: no device is asked

  BandedPlan banded = {};
  PairwiseAttentionPlan general = {};
};

const char* why_not_banded(PairwiseAttentionCall& call);
cudaError_t launch_banded(const PairwiseAttentionCall& call, cudaStream_t stream);

}  // namespace sa_layers::cuda
