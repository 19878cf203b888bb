// How patchwise attention is cut into blocks, and how a block divides its shared memory. Plain C++.
#pragma once

#include "cuda/attention_threads.h"
#include "cuda/matrix_tiles.h"
#include "cuda/patchwise_attention.h"

namespace sa_layers::cuda {

constexpr int kPatchwiseQuads = 4;    // sums of a thread, of so many times four channels
constexpr int kPatchwiseRows = 4;     // of a product, which a thread computes four outputs of at a time
constexpr int kPatchwisePixels = 64;  // of a block, at most: more would save no time but that of reading weights

// In what pieces a product is computed, each by so many threads: rows, columns and a step of the inner dimension.
struct ProductPieces {
  MatrixNumbers numbers;
  int threads, rows, columns, step;
  int weights_in_pixels;  // what a block's reading of the matrices costs, in the work of so many pixels

  int unit() const { return numbers.tensor_cores ? 8 : 4; }  // widths are multiples of it
  // Tensor cores read the right factor as rows of numbers along the inner dimension, others as rows of columns.
  int right_stride(int inner, int outer) const {
    return numbers.tensor_cores ? row_stride(inner, numbers.piece()) : outer;
  }
  int64_t right_bytes(int inner, int outer) const {
    return int64_t(numbers.tensor_cores ? outer : inner) * right_stride(inner, outer) * numbers.factor_bytes;
  }
};

inline ProductPieces pieces_of_multiply_adds(int bytes) { return {{bytes, bytes, false}, 1, kPatchwiseRows, 4, 4, 8}; }
inline ProductPieces pieces_of_tensor_cores(int factor_bytes) {
  return {{factor_bytes, 4, true}, 32, kWarpRows, kWarpColumns, 32 / factor_bytes, 32};
}

// A block computes the hidden layer of some output pixels, going through the features in panels of some taps and
// channels, and then their outputs, a slice of the weights of every tap at a time, going through the taps in rounds.
// Offsets count bytes in shared memory.
struct PatchwiseAttentionPlan {
  int pixels;                                            // 0: nothing fits
  int panel_taps, panel_channels, depth, parts;          // so many workers share the depth of a panel
  int hidden, left_stride, right_stride, hidden_stride;  // the hidden layer's width, and steps between rows
  int weights, shares;                                   // of a tap, one or two repeated to fill four; how many use one
  int slice, taps, columns, matrix_stride, weights_stride;  // of a round
  int sources_step;
  int sources, hidden_rows, left[2], right[2], partial, matrix, constants, tap_weights;
  int64_t shared_bytes;
};

namespace planning {

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The size of about even portions of no more than `most`.
inline int even_portion(int64_t all, int64_t most) { return int(divide_up(all, divide_up(all, most))); }

// Hands out shared memory from an offset on.
struct Memory {
  int64_t used;

  int take(int64_t bytes) {
    const int64_t offset = used;
    used += divide_up(bytes, 16) * 16;
    return int(offset);
  }
};

// Panels of up to so many features: of whole taps, or of some channels of one.
inline void lay_out_panels(PatchwiseAttentionPlan& plan, const PatchwiseAttention& problem, const ProductPieces& pieces,
                           int most, int threads, Memory& memory) {
  const int channels = round_up(problem.feature_channels(), 4);
  plan.panel_channels = channels <= most ? channels : round_up(even_portion(channels, most), 4);
  plan.panel_taps = channels <= most ? even_portion(problem.feature_taps(), most / channels) : 1;
  plan.depth = round_up(plan.panel_taps * plan.panel_channels, pieces.step);
  plan.left_stride = row_stride(plan.depth, pieces.numbers.piece());
  plan.right_stride = pieces.right_stride(plan.depth, plan.hidden);
  const int64_t units = divide_up(plan.pixels, pieces.rows) * divide_up(plan.hidden, pieces.columns);
  const int64_t most_parts = threads / pieces.threads / units, steps = plan.depth / pieces.step;
  plan.parts = even_portion(steps, most_parts < steps ? most_parts : steps);
  for (int i = 0; i < 2; ++i) {
    plan.left[i] = memory.take(int64_t(plan.pixels) * plan.left_stride * pieces.numbers.factor_bytes);
    plan.right[i] = memory.take(pieces.right_bytes(plan.depth, plan.hidden));
  }
}

// Rounds of up to so many columns, which are those of a slice of every tap.
inline void lay_out_rounds(PatchwiseAttentionPlan& plan, const PatchwiseAttention& problem, const ProductPieces& pieces,
                           int most, int threads, Memory& memory) {
  const int quads = quads_of(plan.weights), room = threads * kPatchwiseQuads / (plan.pixels * plan.shares);
  const int most_quads = room < most / 4 ? room : most / 4;
  plan.slice = 4 * even_portion(quads, most_quads < quads ? most_quads : quads);
  plan.taps = even_portion(problem.footprint.taps(), most / plan.slice);
  plan.columns = round_up(plan.taps * plan.slice, pieces.unit());
  plan.matrix_stride = pieces.right_stride(plan.hidden, plan.columns);
  plan.weights_stride = pieces.numbers.tensor_cores ? sums_stride(plan.columns) : row_stride(plan.columns);
  plan.matrix = memory.take(pieces.right_bytes(plan.hidden, plan.columns));
  plan.constants = memory.take(int64_t(plan.columns) * pieces.numbers.sum_bytes);
  plan.tap_weights = memory.take(int64_t(plan.pixels) * plan.weights_stride * pieces.numbers.sum_bytes);
}

// Whether a plan of plan.pixels fits `limit` bytes, with panels and rounds of no fewer features and columns than
// `least`. Panels are as deep as half of that allows: the loads of one are under way together.
inline bool lay_out(PatchwiseAttentionPlan& plan, const PatchwiseAttention& problem, const ProductPieces& pieces,
                    int least, int threads, int64_t limit) {
  Memory all = {0};
  plan.sources_step = (int(problem.footprint.taps()) + 1) | 1;
  plan.sources = all.take(plan.pixels * int64_t(plan.sources_step) * sizeof(int32_t));
  plan.hidden_stride = row_stride(plan.hidden, pieces.numbers.piece());
  plan.hidden_rows = all.take(int64_t(plan.pixels) * plan.hidden_stride * pieces.numbers.factor_bytes);
  const int64_t kept = all.used;

  bool fits = false;
  for (int most = 256; most >= least && !fits; most /= 2) {
    Memory panels = {kept}, sums = {kept};
    lay_out_panels(plan, problem, pieces, most, threads, panels);
    plan.partial = sums.take(int64_t(plan.parts) * plan.pixels * plan.hidden * pieces.numbers.sum_bytes);
    plan.shared_bytes = panels.used > sums.used ? panels.used : sums.used;
    fits = plan.shared_bytes <= limit && (panels.used - kept <= limit / 2 || most / 2 < least);
  }
  if (!fits) return false;
  // As many columns as give every worker a piece.
  const int64_t columns = pieces.columns * (threads / pieces.threads / divide_up(plan.pixels, pieces.rows));
  for (int64_t most = columns > least ? columns : least; most >= least; most /= 2) {
    Memory rounds = {kept};
    lay_out_rounds(plan, problem, pieces, int(most) / 4 * 4, threads, rounds);
    if (rounds.used > limit) continue;
    if (rounds.used > plan.shared_bytes) plan.shared_bytes = rounds.used;
    return true;
  }
  return false;
}

}  // namespace planning

// A plan for blocks of up to `shared_limit` bytes; of no pixels where none fits.
inline PatchwiseAttentionPlan plan_patchwise_attention(const PatchwiseAttention& problem, const ProductPieces& pieces,
                                                       int64_t shared_limit, int64_t multiprocessors,
                                                       int threads = kAttentionThreads) {
  using planning::divide_up;
  PatchwiseAttentionPlan plan = {};
  plan.hidden = round_up(problem.weight_channels, pieces.unit());
  plan.weights = problem.weight_channels <= 2 ? 4 : problem.weight_channels;
  plan.shares = int(divide_up(problem.value_channels, plan.weights));
  // As many pixels as registers hold the sums of: of the hidden layer, and of the narrowest slice of the value.
  int64_t most = pieces.rows * (threads / pieces.threads / divide_up(plan.hidden, pieces.columns));
  if (most > threads * kPatchwiseQuads / plan.shares) most = threads * kPatchwiseQuads / plan.shares;
  if (most > kPatchwisePixels) most = kPatchwisePixels;
  // So many that the busiest multiprocessor has least to do.
  const int64_t step = pieces.rows < 8 ? pieces.rows : 8;
  int64_t least_cost = INT64_MAX;
  int pixels = 0;
  for (int64_t count = most; count > 0; count -= count % step ? count % step : step) {
    const int64_t blocks = divide_up(problem.output_pixels(), count);
    const int64_t cost = divide_up(blocks, multiprocessors) * (count + pieces.weights_in_pixels);
    if (cost < least_cost) least_cost = cost, pixels = int(count);
  }
  // Blocks share a multiprocessor, two by two, where they are so many and that leaves panels and rounds of some width.
  constexpr int kLeast = 16;
  const bool alone = divide_up(problem.output_pixels(), pixels > 0 ? pixels : 1) <= multiprocessors;
  for (; pixels > 0; pixels /= 2) {
    plan.pixels = pixels;
    if (!alone && planning::lay_out(plan, problem, pieces, kLeast, threads, shared_limit / 2 - 1024)) return plan;
    if (planning::lay_out(plan, problem, pieces, kLeast, threads, shared_limit)) return plan;
    if (pixels == 1 && planning::lay_out(plan, problem, pieces, 4, threads, shared_limit)) return plan;
  }
  return {};
}

}  // namespace sa_layers::cuda
