// Patchwise attention of SAN's widths in half precision: a warp loops over the rows of its output pixels' footprints,
// for the hidden layer and then for some weight channels at a time, which it uses as bands of matrices.
#pragma once

#include <cstdint>

#include "cuda/banded/bands.cuh"
#include "cuda/banded/plan.h"
#include "cuda/banded/region.cuh"
#include "cuda/common/mma.cuh"
#include "cuda/common/pack.cuh"
#include "cuda/common/shared_memory.cuh"
#include "cuda/patchwise_attention/banded/hidden.cuh"
#include "cuda/patchwise_attention/banded/packing.cuh"
#include "cuda/patchwise_attention/problem.h"
#include "footprint.h"

namespace sa_layers::cuda {

// A warp's weights of a row of taps as bands of matrices, as in Bands, where both rows of output pixels have the same
// taps: the second row falls on the map one row lower, so its half of the matrices is used one step later and is
// double-buffered.
template <typename T, int kWeights>
class LateBands {
 public:
  static constexpr int kStride = kWeights * kBandColumns * int(sizeof(T)) + 16;
  static constexpr int kHalf = kTileColumns * kStride, kBytes = 3 * kHalf;

  __device__ LateBands(unsigned char* memory, const BandedTile& tile) : memory_(memory), lane_(tile.lane) {
    // A thread has two of eight weights of a tap, or both weights of its own tap.
    constexpr int kPlace = kWeights < 8 ? int(sizeof(T)) : kBandColumns * int(sizeof(T));
    to_ = memory + tile.pixel() * (kStride + int(sizeof(T))) + tile.pair() * kPlace;
    from_ = memory + tile.lane % 8 * kStride + tile.lane / 16 * 16;
  }

  __device__ void clear() const { clear(kBytes); }
  // After the last row of taps only the second row of pixels is left.
  __device__ void clear_first() const { clear(kHalf); }

  // Stores two weights of the thread's pixel in the tile's row 0 or 1, for a column of taps. `turn` alternates between
  // 0 and 1 from step to step.
  __device__ void store(int row, int turn, int column_tap, uint32_t two) const {
    unsigned char* const to = to_ + (row == 0 ? 0 : (1 + turn) * kHalf) + column_tap * int(sizeof(T));
    *reinterpret_cast<uint16_t*>(to) = uint16_t(two);
    *reinterpret_cast<uint16_t*>(to + place(1) * kBandColumns * int(sizeof(T))) = uint16_t(two >> 16);
  }

  // Accumulates a row of the map, with the second row's weights of the previous step. `column` is the thread's address
  // of the values, see value_column.
  __device__ void add(int turn, const unsigned char* column, BandedSums<kWeights>& sums) const {
    const unsigned char* const band = from_ + (lane_ % 16 < 8 ? 0 : (2 - turn) * kHalf);
    sums.template add<T>(band, [](int weight) { return place(weight) * kBandColumns * int(sizeof(T)); }, column);
  }

 private:
  // Even weights precede odd ones, so that the threads of a pixel write to different banks.
  static constexpr __device__ int place(int weight) {
    return kWeights < 8 ? weight : weight % 2 * (kWeights / 2) + weight / 2;
  }
  __device__ void clear(int bytes) const {
#pragma unroll 1
    for (int at = 16 * lane_; at < bytes; at += 16 * 32) *reinterpret_cast<Pack<T, 8>*>(memory_ + at) = {};
  }

  unsigned char *memory_, *to_;
  const unsigned char* from_;
  int lane_;
};

template <typename T>
struct BandedPatchOperands {
  const T *query, *key, *value;
  const uint32_t* packed;  // see PackedPatches
  const float *hidden_bias, *output_scale, *output_shift;
  T* output;
};

// A warp's view of the region: the lines of its tile, and its part of the channels and weights.
template <typename Patches>
struct PatchLines {
  const Line *rows, *columns;
  const unsigned char *keys, *values;
  int part, kernel_height, kernel_width;
};

template <int kKernelWidth, typename T, typename Patches>
__device__ void add_footprint(const PatchLines<Patches>& lines, const PackedPatches& packed, const BandedTile& tile,
                              HiddenSums<T, Patches>& sums) {
  constexpr int kRounds = (kKernelWidth + Patches::kTaps - 1) / Patches::kTaps;
  const unsigned char* const keys =
      lines.keys + PatchChannels<Patches>::first(lines.part, tile.pair()) * int(sizeof(T));
  const Line* const columns = lines.columns + tile.pixel();
#pragma unroll 1
  for (int row = 0; row < lines.kernel_height; ++row) {
    const unsigned char* const first = keys + lines.rows[row].pixel * Patches::kKeyStride;
    const unsigned char* const second = keys + lines.rows[row + 1].pixel * Patches::kKeyStride;
#pragma unroll(kRounds > 0 ? Patches::kFeaturesTogether : 1)
    for (int round = 0; round < (kRounds > 0 ? kRounds : packed.row_rounds); ++round) {
      int tap = round;
      if (Patches::kTaps > 1) tap = min(round * Patches::kTaps + tile.pair(), lines.kernel_width - 1);
      const int pixel = columns[tap].pixel * Patches::kKeyStride;
      sums.add(PatchChannels<Patches>(first + pixel, second + pixel));
    }
  }
}

// Accumulates the values of a group of weights.
template <int kKernelWidth, typename T, typename Patches>
__device__ void add_values(const PatchLines<Patches>& lines, const PackedPatches& packed, const BandedTile& tile,
                           const HiddenWords<T, Patches>& hidden, const LateBands<T, Patches::kGroup>& bands,
                           PatchWeights<T, Patches>& weights, BandedSums<Patches::kGroup>& sums) {
  constexpr int kRounds = (kKernelWidth + Patches::kTaps - 1) / Patches::kTaps;
  const unsigned char* const values = lines.values +
                                      lines.columns[value_column(tile.lane)].pixel * Patches::kValueStride +
                                      (lines.part * Patches::kGroup + value_weight(tile.lane)) * 16;
#pragma unroll 1
  for (int row = 0; row <= lines.kernel_height; ++row) {
    if (row == lines.kernel_height) {
      bands.clear_first();
    } else {
#pragma unroll(kRounds > 0 ? Patches::kWeightsTogether : 1)
      for (int round = 0; round < (kRounds > 0 ? kRounds : packed.row_rounds); ++round) {
        uint32_t words[2];
        weights.find(hidden, words);
        const int column_tap = round * Patches::kTaps;
        if (Patches::kTaps > 1 && column_tap + tile.pair() >= lines.kernel_width) continue;
        bands.store(0, row % 2, column_tap, words[0]);
        bands.store(1, row % 2, column_tap, words[1]);
      }
    }
    __syncwarp();
    bands.add(row % 2, values + lines.rows[row].pixel * Patches::kValueStride, sums);
    __syncwarp();
  }
}

// Copies the values of the weights that the block's warps process in a phase.
template <typename T, typename Patches>
__device__ void copy_values_of(int phase, const BandedRegion& region, const PatchwiseAttention& problem,
                               const BandedPlan& plan, const BandedPatchOperands<T>& operands, unsigned char* memory) {
  const Footprint& footprint = problem.footprint;
  copy_values<Patches::kPhaseWeights>(
      region, plan, operands.value + region.image * footprint.pixels() * problem.value_step,
      phase * Patches::kPhaseWeights, Patches::kWeights, footprint.columns.size * problem.value_step,
      problem.value_step, footprint.mode == Padding::kZeros, memory + plan.values, Patches::kValueStride);
}

// Fills the shared memory of a block, except the warps' part.
template <typename T, typename Patches>
__device__ void copy_region(const PatchwiseAttention& problem, const BandedPlan& plan,
                            const BandedPatchOperands<T>& operands, const BandedRegion& region, unsigned char* memory) {
  const Axis &down = problem.footprint.rows, &right = problem.footprint.columns;
  const Padding mode = problem.footprint.mode;
  const int row_lines = plan.rows() + int(down.kernel) - 1;
  Line* const rows = reinterpret_cast<Line*>(memory);
  const auto nothing = [](int, Line&) {};
  fill_lines(down, mode, region.row, row_lines, region.first_row, region.last_row, plan.region_rows, plan.row_pixels,
             rows, nothing);
  fill_lines(right, mode, region.column, plan.columns_reached(), region.first_column, region.last_column,
             plan.region_columns, 1, rows + row_lines, nothing);
  copy_keys<Patches::kChannels>(region, plan,
                                operands.key + region.image * problem.footprint.pixels() * problem.key_step,
                                right.size * problem.key_step, problem.key_step, mode == Padding::kZeros,
                                memory + plan.keys, Patches::kKeyStride);
  copy_values_of<T, Patches>(0, region, problem, plan, operands, memory);
  if (threadIdx.x == 0) *reinterpret_cast<BandedRegion*>(memory + plan.once) = region;
}

template <int kKernelWidth, typename T, typename Patches>
__device__ void patchwise_attention_block(const PatchwiseAttention& problem, const BandedPlan& plan,
                                          const PackedPatches& packed, const BandedPatchOperands<T>& operands) {
  using Bands = LateBands<T, Patches::kGroup>;
  constexpr int kParts = Patches::kParts;
  unsigned char* const memory = reinterpret_cast<unsigned char*>(shared_memory());
  const Axis &down = problem.footprint.rows, &right = problem.footprint.columns;
  copy_region<T, Patches>(problem, plan, operands, BandedRegion(problem.footprint, plan), memory);
  __syncthreads();

  const BandedRegion& region = *reinterpret_cast<const BandedRegion*>(memory + plan.once);  // saves registers
  const BandedTile tile(plan, kParts);
  const int warp = int(threadIdx.x) / 32, part = warp % kParts;
  const Line* const rows = reinterpret_cast<const Line*>(memory) + tile.row_tile * kTileRows;
  const Line* const columns =
      reinterpret_cast<const Line*>(memory) + plan.rows() + int(down.kernel) - 1 + tile.column_tile * kTileColumns;
  const PatchLines<Patches> lines = {rows,
                                     columns,
                                     memory + plan.keys,
                                     memory + plan.values,
                                     part,
                                     int(down.kernel),
                                     kKernelWidth > 0 ? kKernelWidth : int(right.kernel)};
  const auto pixel_of = [&](int half, bool& inside) {
    const int row = region.row + tile.row_tile * kTileRows + half;
    const int column = region.column + tile.column_tile * kTileColumns + tile.pixel();
    inside = row < int(down.size) && column < int(right.size);
    return region.image * problem.footprint.pixels() + min(row, int(down.size) - 1) * int(right.size) +
           min(column, int(right.size) - 1);
  };

  HiddenSums<T, Patches> hidden_sums(packed, operands.packed, part, tile.lane);
  const auto query_of = [&](int half) {
    bool inside;
    return operands.query + pixel_of(half, inside) * problem.query_step +
           PatchChannels<Patches>::first(part, tile.pair());
  };
  hidden_sums.add(PatchChannels<Patches>(query_of(0), query_of(1)));
  add_footprint<kKernelWidth>(lines, packed, tile, hidden_sums);
  const HiddenWords<T, Patches> hidden(hidden_sums, operands.hidden_bias,
                                       memory + plan.tiles_at + (warp - part) * Bands::kBytes, Bands::kBytes, part,
                                       tile);

  const Bands bands(memory + plan.tiles_at + warp * Bands::kBytes, tile);
#pragma unroll 1
  for (int phase = 0; phase < Patches::kPhases; ++phase) {
    const int group = phase * kParts + part;
    if (phase > 0) {
      __syncthreads();
      copy_values_of<T, Patches>(phase, region, problem, plan, operands, memory);
      __syncthreads();
    }
    PatchWeights<T, Patches> weights(packed, operands.packed, group, tile.lane);
    bands.clear();
    __syncwarp();
    BandedSums<Patches::kGroup> sums;
    add_values<kKernelWidth>(lines, packed, tile, hidden, bands, weights, sums);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      bool inside;
      T* const to = operands.output + pixel_of(half, inside) * problem.value_channels;
      if (!inside) continue;
      store_sums<T>(
          sums, tile, half, Patches::kWeights, group * Patches::kGroup, operands.output_scale, operands.output_shift,
          [](int) { return 1.0f; }, to);
    }
  }
}

// The launch bounds: warps per block, blocks per multiprocessor and registers per thread. Several resident blocks hide
// each other's copies; where warps share a tile, one larger block fills the multiprocessor.
template <typename Patches>
struct BandedPatchLimits {
  static constexpr int kWarps = Patches::kParts > 1 ? 16 : 8;
  static constexpr int kBlocks = Patches::kParts > 1 ? 1 : Patches::kChannels < 16 ? 4 : 2;
  static constexpr int kRegisters = 65'536 / (32 * kWarps * kBlocks);
};

// kKernelWidth is 0 if it is known at run time only.
template <int kKernelWidth, typename T, typename Patches>
__global__ void __launch_bounds__(32 * BandedPatchLimits<Patches>::kWarps, BandedPatchLimits<Patches>::kBlocks)
    banded_patchwise_attention_tiles(const __grid_constant__ PatchwiseAttention problem,
                                     const __grid_constant__ BandedPlan plan,
                                     const __grid_constant__ PackedPatches packed,
                                     const __grid_constant__ BandedPatchOperands<T> operands) {
  // Empty for older architectures, which lack its instructions; there it is not eligible.
  if constexpr (has_tensor_cores<__nv_bfloat16>()) {
    patchwise_attention_block<kKernelWidth, T, Patches>(problem, plan, packed, operands);
  }
}

}  // namespace sa_layers::cuda
