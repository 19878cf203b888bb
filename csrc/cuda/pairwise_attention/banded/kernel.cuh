// Pairwise attention of SAN's widths in half precision: a warp loops over the rows of its output pixels' footprints.
#pragma once

#include <cstdint>

#include "cuda/banded/bands.cuh"
#include "cuda/banded/plan.h"
#include "cuda/banded/region.cuh"
#include "cuda/common/half2.cuh"
#include "cuda/common/mma.cuh"
#include "cuda/common/shared_memory.cuh"
#include "cuda/pairwise_attention/banded/features.cuh"
#include "cuda/pairwise_attention/banded/logits.cuh"
#include "cuda/pairwise_attention/banded/softmax.cuh"
#include "cuda/pairwise_attention/problem.h"
#include "footprint.h"

namespace sa_layers::cuda {

// The part of shared memory that belongs to a tile: bands of its warps, then what these exchange.
template <typename T, typename Mapping>
constexpr int kTileBytes = Mapping::kParts * Bands<T, Mapping::kWeights>::kBytes + HiddenExchange<T, Mapping>::kBytes;

template <int kKernelWidth, typename T, typename Mapping>
__device__ void pairwise_attention_block(const PairwiseAttention& problem, const BandedPlan& plan,
                                         const PairwiseAttentionOperands<T>& operands) {
  constexpr int kWeights = Mapping::kWeights, kWeightTiles = Mapping::kWeightTiles;
  unsigned char* const memory = reinterpret_cast<unsigned char*>(shared_memory());
  const Footprint& footprint = problem.footprint;
  const int kernel_height = int(footprint.rows.kernel), kernel_width = int(footprint.columns.kernel);
  const BandedRegion region(footprint, plan);
  constexpr int kParts = Mapping::kParts;
  const BandedTile tile(plan, kParts);
  const int warp = int(threadIdx.x) / 32, part = warp % kParts;
  const bool zeros = footprint.mode == Padding::kZeros;
  const int first_weight = region.group * Mapping::kAllWeights, all_weights = problem.weight_channels();

  Line* const rows = reinterpret_cast<Line*>(memory);
  Line* const columns = rows + plan.rows() + kernel_height - 1;
  const auto lines_along = [&](const Axis& axis, int64_t size, int coordinate, bool constant) {
    return [&problem, &operands, axis, size, coordinate, constant](int pixel, Line& line) {
      const float there = coordinate_of<float>(pixel, axis.size, size);
      float parts[2] = {0, 0};
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (i >= problem.positions) continue;
        const float* const matrix = operands.key_position + 3 * i;
        parts[i] = operands.scale[Mapping::kChannels + i] * (matrix[coordinate] * there + (constant ? matrix[2] : 0));
      }
      line.first = parts[0], line.second = parts[1];
    };
  };
  fill_lines(footprint.rows, footprint.mode, region.row, plan.rows() + kernel_height - 1, region.first_row,
             region.last_row, plan.region_rows, plan.row_pixels, rows,
             lines_along(footprint.rows, problem.position_height, 1, true));
  fill_lines(footprint.columns, footprint.mode, region.column, plan.columns_reached(), region.first_column,
             region.last_column, plan.region_columns, 1, columns,
             lines_along(footprint.columns, problem.position_width, 0, false));
  copy_mapping<Mapping>(problem, operands, first_weight, memory + plan.once);
  copy_keys<Mapping::kChannels>(region, plan, operands.key + region.image * problem.key_steps.image,
                                problem.key_steps.row, problem.key_steps.pixel, zeros, memory + plan.keys,
                                Mapping::kKeyStride);
  copy_values<Mapping::kAllWeights>(region, plan, operands.value + region.image * problem.value_steps.image,
                                    first_weight, all_weights, problem.value_steps.row, problem.value_steps.pixel,
                                    zeros, memory + plan.values, Mapping::kValueStride);
  unsigned char* const of_tile = memory + plan.tiles_at + warp / kParts * kTileBytes<T, Mapping>;
  const Bands<T, kWeights> bands(of_tile + part * Bands<T, kWeights>::kBytes, tile);
  bands.clear(tile.lane);
  __syncthreads();

  const PairNorm* const norms = reinterpret_cast<const PairNorm*>(memory + plan.once);
  const WarpPairs<T, Mapping> pairs = {
      BandedQuery<T, Mapping>(problem, operands, region, tile, norms),
      MappingMatrices<Mapping>(memory + plan.once, part, tile.lane),
      HiddenExchange<T, Mapping>(of_tile + kParts * Bands<T, kWeights>::kBytes, warp / kParts, part, tile.lane),
      tile.pair(), kernel_width};
  const Line* const tile_columns = columns + tile.column_tile * kTileColumns;
  const unsigned char* const values = memory + plan.values +
                                      tile_columns[value_column(tile.lane)].pixel * Mapping::kValueStride +
                                      (part * kWeights + value_weight(tile.lane)) * 16;
  const unsigned char* const keys = memory + plan.keys + 4 * pairs.query.first_pair();
  BandedSoftmax<kWeightTiles> softmax;
  BandedSums<kWeights> sums;
#pragma unroll 1
  for (int step = 0; step <= kernel_height; ++step) {
    const Line line = rows[tile.row_tile * kTileRows + step];
    const BandedRow row = {
        keys + line.pixel * Mapping::kKeyStride, line, tile_columns + tile.pixel(), {step < kernel_height, step > 0}};
    OfWeights<kWeightTiles> total;
    bool starts = step < 2;
    while (pairs.exchange.any(weigh_row<kKernelWidth>(pairs, row, starts, step, bands, softmax, total))) {
      OfWeights<kWeightTiles> maximum;
      find_maximum(pairs, row, softmax, maximum);
      rescale(maximum, tile, bands, softmax, sums);
      starts = false;
    }
    for_each_weight<kWeightTiles>(
        [&](int weight_tile, int i) { softmax.total[weight_tile][i] = total[weight_tile][i]; });
    __syncwarp();
    sums.template add<T>(
        bands.row_of(tile.lane), [](int weight) { return Bands<T, kWeights>::offset(weight); },
        values + line.pixel * Mapping::kValueStride);
    __syncwarp();
  }

  OfWeights<kWeightTiles> factors;
  for_each_weight<kWeightTiles>(
      [&](int weight_tile, int i) { factors[weight_tile][i] = reciprocal(softmax.total[weight_tile][i]); });
  const float* const shared = reinterpret_cast<const float*>(bands.memory());
  share_numbers<kWeights>(factors, tile, reinterpret_cast<float*>(bands.memory()));
  const int column = region.column + tile.column_tile * kTileColumns + tile.pixel();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = region.row + tile.row_tile * kTileRows + half;
    if (row >= int(footprint.rows.size) || column >= int(footprint.columns.size)) continue;
    T* const to = operands.output + ((region.image * footprint.rows.size + row) * footprint.columns.size + column) *
                                        problem.value_channels;
    const float* const of_pixel = shared + (half * kTileColumns + tile.pixel()) * kWeights;
    store_sums<T>(
        sums, tile, half, all_weights, first_weight + part * kWeights, operands.output_scale, operands.output_shift,
        [&](int weight) { return of_pixel[weight]; }, to);
  }
}

// The launch bounds: warps per block, blocks per multiprocessor and registers per thread.
template <typename Mapping>
struct BandedLimits {
  static constexpr int kWarps = 8, kBlocks = Mapping::kChannels < 32 ? 2 : 1;
  static constexpr int kRegisters = kBlocks == 2 ? 128 : 255;
};

// kKernelWidth is 0 if it is known at run time only.
template <typename T, typename Mapping, int kKernelWidth>
__global__ void __launch_bounds__(32 * BandedLimits<Mapping>::kWarps, BandedLimits<Mapping>::kBlocks)
    banded_pairwise_attention_tiles(const __grid_constant__ PairwiseAttention problem,
                                    const __grid_constant__ BandedPlan plan,
                                    const __grid_constant__ PairwiseAttentionOperands<T> operands) {
  // Empty for older architectures, which lack its instructions; there it is not eligible.
  if constexpr (has_tensor_cores<__nv_bfloat16>())
    pairwise_attention_block<kKernelWidth, T, Mapping>(problem, plan, operands);
}

}  // namespace sa_layers::cuda
