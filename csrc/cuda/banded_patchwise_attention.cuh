// Patchwise attention in registers: a warp goes through the footprints of its output pixels row by row, for the hidden
// layer and then for some of the weights at a time, which it uses up as bands of matrices.
#pragma once

#include "cuda/banded_late_weights.cuh"
#include "cuda/banded_patch_weights.cuh"
#include "cuda/patchwise_attention.h"
#include "cuda/shared_memory.cuh"

namespace sa_layers::cuda {

template <typename T>
struct BandedPatchOperands {
  const T *query, *key, *value;
  const uint32_t* packed;  // see PackedPatches
  const float *hidden_bias, *output_scale, *output_shift;
  T* output;
};

// What a warp takes of the region: the lines of its tile, and its part of the channels and weights.
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
      if (Patches::kTaps > 1) tap = least(round * Patches::kTaps + tile.pair(), lines.kernel_width - 1);
      const int pixel = columns[tap].pixel * Patches::kKeyStride;
      sums.add(PatchChannels<Patches>(first + pixel, second + pixel));
    }
  }
}

// The sums of a group of weights.
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

// The values of the weights that a block's warps have at a time.
template <typename T, typename Patches>
__device__ void copy_values_of(int phase, const BandedRegion& region, const PatchwiseAttention& problem,
                               const BandedPlan& plan, const BandedPatchOperands<T>& operands, unsigned char* memory) {
  const Footprint& footprint = problem.footprint;
  copy_values<Patches::kPhaseWeights>(
      region, plan, operands.value + region.image * footprint.pixels() * problem.value_step,
      phase * Patches::kPhaseWeights, Patches::kWeights, footprint.columns.size * problem.value_step,
      problem.value_step, footprint.mode == Padding::kZeros, memory + plan.values, Patches::kValueStride);
}

// Fills the memory of a block, but for the warps' part.
template <typename T, typename Patches>
__device__ void copy_region(const PatchwiseAttention& problem, const BandedPlan& plan,
                            const BandedPatchOperands<T>& operands, const BandedRegion& region, unsigned char* memory) {
  const Axis &down = problem.footprint.rows, &right = problem.footprint.columns;
  const Padding mode = problem.footprint.mode;
  const int row_lines = plan.rows() + int(down.kernel) - 1;
  Line* const rows = reinterpret_cast<Line*>(memory);
  const auto nothing = [](int, Line&) {};
  place_lines(down, mode, region.row, row_lines, region.first_row, region.last_row, plan.region_rows, plan.row_pixels,
              rows, nothing);
  place_lines(right, mode, region.column, plan.columns_reached(), region.first_column, region.last_column,
              plan.region_columns, 1, rows + row_lines, nothing);
  copy_keys<Patches::kChannels>(region, plan,
                                operands.key + region.image * problem.footprint.pixels() * problem.key_step,
                                right.size * problem.key_step, problem.key_step, mode == Padding::kZeros,
                                memory + plan.keys, Patches::kKeyStride);
  copy_values_of<T, Patches>(0, region, problem, plan, operands, memory);
  if (threadIdx.x == 0) *reinterpret_cast<BandedRegion*>(memory + plan.once) = region;
}

template <int kKernelWidth, typename T, typename Patches>
__device__ void attend_to_patches(const PatchwiseAttention& problem, const BandedPlan& plan,
                                  const PackedPatches& packed, const BandedPatchOperands<T>& operands) {
  using Bands = LateBands<T, Patches::kGroup>;
  constexpr int kParts = Patches::kParts;
  unsigned char* const memory = reinterpret_cast<unsigned char*>(shared_memory());
  const Axis &down = problem.footprint.rows, &right = problem.footprint.columns;
  copy_region<T, Patches>(problem, plan, operands, BandedRegion(problem.footprint, plan), memory);
  __syncthreads();

  const BandedRegion& region = *reinterpret_cast<const BandedRegion*>(memory + plan.once);  // registers are few
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
    return region.image * problem.footprint.pixels() + least(row, int(down.size) - 1) * int(right.size) +
           least(column, int(right.size) - 1);
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

// The warps of a block at most, the blocks that registers have room for then, and the registers of a thread. Several
// blocks of a multiprocessor hide each other's copies; where warps share a tile, more of them fill it.
template <typename Patches>
struct BandedPatchLimits {
  static constexpr int kWarps = Patches::kParts > 1 ? 16 : 8;
  static constexpr int kBlocks = Patches::kParts > 1 ? 1 : Patches::kChannels < 16 ? 4 : 2;
  static constexpr int kRegisters = 65'536 / (32 * kWarps * kBlocks);
};

// kKernelWidth is 0 for one of run time.
template <int kKernelWidth, typename T, typename Patches>
__global__ void __launch_bounds__(32 * BandedPatchLimits<Patches>::kWarps, BandedPatchLimits<Patches>::kBlocks)
    banded_patchwise_attention_tiles(const __grid_constant__ PatchwiseAttention problem,
                                     const __grid_constant__ BandedPlan plan,
                                     const __grid_constant__ PackedPatches packed,
                                     const __grid_constant__ BandedPatchOperands<T> operands) {
  // Older architectures lack its instructions, and the launcher does without.
  if constexpr (has_tensor_cores<__nv_bfloat16>()) {
    attend_to_patches<kKernelWidth, T, Patches>(problem, plan, packed, operands);
  }
}

}  // namespace sa_layers::cuda
