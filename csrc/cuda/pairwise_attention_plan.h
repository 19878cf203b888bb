// How pairwise attention is cut into blocks, and how a block divides its shared memory. Plain C++.
#pragma once

#include <initializer_list>

#include "cuda/attention_threads.h"
#include "cuda/pairwise_attention.h"

namespace sa_layers::cuda {

// Sums of a thread, of so many times four channels: a block of 256 has those of kMostValueChannels.
constexpr int kAttentionQuads = 4;

// An output pixel.
struct Centre {
  int64_t image;
  int row, column;
};

// The pixel that a tap reads: offsets of its key and value, its place in the map; all -1 beyond the border.
struct Neighbour {
  int64_t key, value;
  int row, column;
};

// A block has some output pixels, and takes some taps of all of them at a time: one pair, of a pixel and a tap, is a
// row of `features`, which the mapping's layers turn into others. Offsets count bytes in shared memory.
struct PairwiseAttentionPlan {
  int pixels, taps;  // 0 pixels: nothing fits
  int logits;        // of a pair: the mapping's outputs, one or two of them repeated to fill four
  int widths[kMappingLayers + 1], strides[kMappingLayers + 1];  // of the rows, in whole fours
  // The weights of a layer come in slices of so many outputs. Resident ones are one slice, read once.
  int columns[kMappingLayers], strides_of_weights[kMappingLayers];
  bool resident;
  int centres, neighbours, features[2], weights[kMappingLayers], greatest, total, correction;
  int64_t shared_bytes;

  int rows() const { return pixels * taps; }
};

namespace planning {

// Lays out shared memory behind `weight_bytes` of weights.
inline void lay_out(PairwiseAttentionPlan& plan, int layers, int element_bytes, int64_t weight_bytes) {
  int64_t used = weight_bytes;
  const auto take = [&](int64_t bytes) {
    const int64_t offset = used;
    used += (bytes + 15) / 16 * 16;
    return int(offset);
  };
  int widest[2] = {0, 0};
  for (int layer = 0; layer <= layers; ++layer) {
    if (plan.strides[layer] > widest[layer % 2]) widest[layer % 2] = plan.strides[layer];
  }
  for (int i = 0; i < 2; ++i) plan.features[i] = take(int64_t(plan.rows()) * widest[i] * element_bytes);
  for (int* state : {&plan.greatest, &plan.total, &plan.correction}) {
    *state = take(int64_t(plan.pixels) * plan.logits * element_bytes);
  }
  plan.centres = take(plan.pixels * int64_t(sizeof(Centre)));
  plan.neighbours = take(plan.rows() * int64_t(sizeof(Neighbour)));
  plan.shared_bytes = used;
}

// Up to `rows` pairs at a time, of up to `pixels` pixels; the rounds over the taps have about as many each.
inline void choose_rows(PairwiseAttentionPlan& plan, int64_t taps, int64_t pixels, int rows) {
  plan.pixels = int(pixels < rows ? pixels : rows);
  const int64_t at_once = rows / plan.pixels < taps ? rows / plan.pixels : taps;
  const int64_t rounds = (taps + at_once - 1) / at_once;
  plan.taps = int((taps + rounds - 1) / rounds);
}

}  // namespace planning

// A plan for blocks of up to `shared_limit` bytes; of no pixels where none fits.
inline PairwiseAttentionPlan plan_pairwise_attention(const PairwiseAttention& problem, int element_bytes,
                                                     int64_t shared_limit, int64_t multiprocessors,
                                                     int threads = kAttentionThreads) {
  PairwiseAttentionPlan plan = {};
  const int weight_channels = problem.weight_channels();
  plan.logits = weight_channels <= 2 ? 4 : weight_channels;
  int64_t widest = 4, all_weights = 0;
  for (int layer = 0; layer <= problem.layers; ++layer) {
    plan.widths[layer] = round_up_to_quads(layer < problem.layers ? problem.widths[layer] : plan.logits);
    plan.strides[layer] = row_stride(plan.widths[layer]);
    if (layer == 0) continue;
    plan.weights[layer - 1] = int(all_weights);
    plan.columns[layer - 1] = plan.widths[layer], plan.strides_of_weights[layer - 1] = plan.strides[layer];
    all_weights += int64_t(plan.widths[layer - 1]) * plan.strides[layer] * element_bytes;
    if (plan.widths[layer] > widest) widest = plan.widths[layer];
  }
  // As many pixels as registers hold the sums of, but no fewer blocks than keep the GPU busy.
  int64_t pixels = threads * kAttentionQuads / quads_of(problem.value_channels);
  if (pixels == 0) return {};
  const int64_t share = problem.output_pixels() / (2 * multiprocessors);
  if (pixels > share) pixels = share > 0 ? share : 1;
  // As many rows as give every thread one tile of the widest layer.
  const int64_t wanted = tile_rows(element_bytes) * 4 * threads / widest;
  const int most_rows = wanted < 32 ? 32 : wanted > 1024 ? 1024 : int(wanted);

  plan.resident = true;
  for (int rows = most_rows; rows >= 32; rows /= 2) {
    planning::choose_rows(plan, problem.footprint.taps(), pixels, rows);
    planning::lay_out(plan, problem.layers, element_bytes, all_weights);
    if (plan.shared_bytes <= shared_limit) return plan;
  }
  plan.resident = false;
  for (int rows = most_rows; rows >= 1; rows /= 2) {
    // Slices of no fewer than 32 outputs, as long as there are rows to take away.
    for (int columns = 128; columns >= (rows > 8 ? 32 : 4); columns /= 2) {
      int64_t slice = 0;
      for (int layer = 0; layer < problem.layers; ++layer) {
        const int width = plan.widths[layer + 1];
        plan.columns[layer] = width < columns ? width : columns, plan.weights[layer] = 0;
        plan.strides_of_weights[layer] = row_stride(plan.columns[layer]);
        const int64_t bytes = int64_t(plan.widths[layer]) * plan.strides_of_weights[layer] * element_bytes;
        if (bytes > slice) slice = bytes;
      }
      planning::choose_rows(plan, problem.footprint.taps(), pixels, rows);
      planning::lay_out(plan, problem.layers, element_bytes, slice);
      if (plan.shared_bytes <= shared_limit) return plan;
    }
  }
  return {};
}

}  // namespace sa_layers::cuda
