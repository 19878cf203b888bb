// How the general kernel of patchwise attention is cut into blocks, and how a block divides its shared memory. Plain
// C++.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/banded/plan.h"
#include "cuda/common/block_sizes.h"
#include "cuda/common/plan.h"
#include "cuda/patchwise_attention/problem.h"
#include "footprint.h"

namespace sa_layers::cuda {

constexpr int kPatchwisePacks = 4;    // packs of four accumulators per thread
constexpr int kPatchwiseRows = 4;     // of a product, of which a thread computes four outputs at a time
constexpr int kPatchwisePixels = 64;  // per block, at most: more would only save reads of the weights

// The tiles in which a product is computed: rows, columns and a step of the inner dimension, by `threads` threads each.
struct ProductTiles {
  ProductTypes numbers;
  int threads, rows, columns, step;
  int weights_in_pixels;  // the cost of a block's reads of the matrices, in pixels

  int unit() const { return numbers.tensor_cores ? 8 : 4; }  // widths are multiples of it
  // The right operand is stored by columns for tensor cores, otherwise by rows.
  int right_stride(int inner, int outer) const {
    return numbers.tensor_cores ? row_stride(inner, numbers.vector()) : outer;
  }
  int64_t right_bytes(int inner, int outer) const {
    return int64_t(numbers.tensor_cores ? outer : inner) * right_stride(inner, outer) * numbers.factor_bytes;
  }
};

inline ProductTiles multiply_add_tiles(int bytes) { return {{bytes, bytes, false}, 1, kPatchwiseRows, 4, 4, 8}; }
inline ProductTiles tensor_core_tiles(int factor_bytes) {
  return {{factor_bytes, 4, true}, 32, kWarpRows, kWarpColumns, 32 / factor_bytes, 32};
}

// A block computes the hidden layer of some output pixels, over panels of some taps and channels of the features, and
// then their outputs, a slice of the weights of every tap at a time, over rounds of taps. Offsets are bytes in shared
// memory.
struct PatchwiseAttentionPlan {
  int pixels;                                            // 0 if nothing fits
  int panel_taps, panel_channels, depth, parts;          // `parts` threads or warps split the depth of a panel
  int hidden, left_stride, right_stride, hidden_stride;  // the hidden layer's width, and row strides
  int weights, shares;  // per tap, one or two repeated to fill four; channels per weight
  int slice, taps, columns, matrix_stride, weights_stride;  // per round
  int sources_step;
  int sources, hidden_rows, left[2], right[2], partial, matrix, constants, tap_weights;
  int64_t shared_bytes;
};

namespace planning {

// The size of about equal portions of at most `most`.
inline int even_portion(int64_t all, int64_t most) { return int(ceil_div(all, ceil_div(all, most))); }

// Allocates shared memory, in order.
struct Memory {
  int64_t used;

  int take(int64_t bytes) {
    const int64_t offset = used;
    used += ceil_div<int64_t>(bytes, 16) * 16;
    return int(offset);
  }
};

// Panels of up to `most` features: whole taps, or some channels of one.
inline void lay_out_panels(PatchwiseAttentionPlan& plan, const PatchwiseAttention& problem, const ProductTiles& tiles,
                           int most, int threads, Memory& memory) {
  const int channels = round_up(problem.feature_channels(), 4);
  plan.panel_channels = channels <= most ? channels : round_up(even_portion(channels, most), 4);
  plan.panel_taps = channels <= most ? even_portion(problem.feature_taps(), most / channels) : 1;
  plan.depth = round_up(plan.panel_taps * plan.panel_channels, tiles.step);
  plan.left_stride = row_stride(plan.depth, tiles.numbers.vector());
  plan.right_stride = tiles.right_stride(plan.depth, plan.hidden);
  const int64_t units = ceil_div(plan.pixels, tiles.rows) * ceil_div(plan.hidden, tiles.columns);
  const int64_t most_parts = threads / tiles.threads / units, steps = plan.depth / tiles.step;
  plan.parts = even_portion(steps, most_parts < steps ? most_parts : steps);
  for (int i = 0; i < 2; ++i) {
    plan.left[i] = memory.take(int64_t(plan.pixels) * plan.left_stride * tiles.numbers.factor_bytes);
    plan.right[i] = memory.take(tiles.right_bytes(plan.depth, plan.hidden));
  }
}

// Rounds of up to `most` columns, a slice for each tap.
inline void lay_out_rounds(PatchwiseAttentionPlan& plan, const PatchwiseAttention& problem, const ProductTiles& tiles,
                           int most, int threads, Memory& memory) {
  const int packs = packs_of(plan.weights), room = threads * kPatchwisePacks / (plan.pixels * plan.shares);
  const int most_packs = room < most / 4 ? room : most / 4;
  plan.slice = 4 * even_portion(packs, most_packs < packs ? most_packs : packs);
  plan.taps = even_portion(problem.footprint.taps(), most / plan.slice);
  plan.columns = round_up(plan.taps * plan.slice, tiles.unit());
  plan.matrix_stride = tiles.right_stride(plan.hidden, plan.columns);
  plan.weights_stride = tiles.numbers.tensor_cores ? sums_stride(plan.columns) : row_stride(plan.columns);
  plan.matrix = memory.take(tiles.right_bytes(plan.hidden, plan.columns));
  plan.constants = memory.take(int64_t(plan.columns) * tiles.numbers.sum_bytes);
  plan.tap_weights = memory.take(int64_t(plan.pixels) * plan.weights_stride * tiles.numbers.sum_bytes);
}

// Whether a plan with plan.pixels fits `limit` bytes, with at least `least` features per panel and columns per round.
// Panels are as deep as half of the memory allows, since the loads of one are in flight together.
inline bool lay_out(PatchwiseAttentionPlan& plan, const PatchwiseAttention& problem, const ProductTiles& tiles,
                    int least, int threads, int64_t limit) {
  Memory all = {0};
  plan.sources_step = (int(problem.footprint.taps()) + 1) | 1;
  plan.sources = all.take(plan.pixels * int64_t(plan.sources_step) * sizeof(int32_t));
  plan.hidden_stride = row_stride(plan.hidden, tiles.numbers.vector());
  plan.hidden_rows = all.take(int64_t(plan.pixels) * plan.hidden_stride * tiles.numbers.factor_bytes);
  const int64_t kept = all.used;

  bool fits = false;
  for (int most = 256; most >= least && !fits; most /= 2) {
    Memory panels = {kept}, sums = {kept};
    lay_out_panels(plan, problem, tiles, most, threads, panels);
    plan.partial = sums.take(int64_t(plan.parts) * plan.pixels * plan.hidden * tiles.numbers.sum_bytes);
    plan.shared_bytes = panels.used > sums.used ? panels.used : sums.used;
    fits = plan.shared_bytes <= limit && (panels.used - kept <= limit / 2 || most / 2 < least);
  }
  if (!fits) return false;
  // Enough columns to give every thread or warp a tile.
  const int64_t columns = tiles.columns * (threads / tiles.threads / ceil_div(plan.pixels, tiles.rows));
  for (int64_t most = columns > least ? columns : least; most >= least; most /= 2) {
    Memory rounds = {kept};
    lay_out_rounds(plan, problem, tiles, int(most) / 4 * 4, threads, rounds);
    if (rounds.used > limit) continue;
    if (rounds.used > plan.shared_bytes) plan.shared_bytes = rounds.used;
    return true;
  }
  return false;
}

}  // namespace planning

// A plan for blocks of up to `shared_limit` bytes; its `pixels` is 0 if none fits.
inline PatchwiseAttentionPlan plan_patchwise_attention(const PatchwiseAttention& problem, const ProductTiles& tiles,
                                                       int64_t shared_limit, int64_t multiprocessors,
                                                       int threads = kAttentionThreads) {
  PatchwiseAttentionPlan plan = {};
  plan.hidden = round_up(problem.weight_channels, tiles.unit());
  plan.weights = problem.weight_channels <= 2 ? 4 : problem.weight_channels;
  plan.shares = int(ceil_div(problem.value_channels, plan.weights));
  // As many pixels as registers hold the sums of, for the hidden layer and for the narrowest slice of the value.
  int64_t most = tiles.rows * (threads / tiles.threads / ceil_div(plan.hidden, tiles.columns));
  if (most > threads * kPatchwisePacks / plan.shares) most = threads * kPatchwisePacks / plan.shares;
  if (most > kPatchwisePixels) most = kPatchwisePixels;
  // The number that minimizes the work of the busiest multiprocessor.
  const int64_t step = tiles.rows < 8 ? tiles.rows : 8;
  int64_t least_cost = INT64_MAX;
  int pixels = 0;
  for (int64_t count = most; count > 0; count -= count % step ? count % step : step) {
    const int64_t blocks = ceil_div(problem.output_pixels(), count);
    const int64_t cost = ceil_div(blocks, multiprocessors) * (count + tiles.weights_in_pixels);
    if (cost < least_cost) least_cost = cost, pixels = int(count);
  }
  // Two resident blocks per multiprocessor, if there are enough blocks and panels and rounds stay wide enough.
  constexpr int kLeast = 16;
  const bool alone = ceil_div<int64_t>(problem.output_pixels(), max(pixels, 1)) <= multiprocessors;
  for (; pixels > 0; pixels /= 2) {
    plan.pixels = pixels;
    if (!alone && planning::lay_out(plan, problem, tiles, kLeast, threads, shared_limit / 2 - 1024)) return plan;
    if (planning::lay_out(plan, problem, tiles, kLeast, threads, shared_limit)) return plan;
    if (pixels == 1 && planning::lay_out(plan, problem, tiles, 4, threads, shared_limit)) return plan;
  }
  return {};
}

// What an implementation is asked about, and the plans that eligible ones make.
struct PatchwiseAttentionCall {
  const PatchwiseAttention& problem;
  Element element;
  const PatchwiseAttentionTensors* tensors;  // null: alignment is assumed
  const DeviceLimits* device;                // null: no device is asked

  BandedPlan banded = {};
  PatchwiseAttentionPlan general = {};
};

const char* why_not_banded(PatchwiseAttentionCall& call);
int64_t banded_workspace_bytes(const PatchwiseAttention& problem, Element element);  // 0 if it is not eligible
cudaError_t launch_banded(const PatchwiseAttentionCall& call, cudaStream_t stream);

}  // namespace sa_layers::cuda
