// Pairwise attention in registers: a warp goes through the footprints of its output pixels row by row.
#pragma once

#include "cuda/banded_pairs.cuh"
#include "cuda/shared_memory.cuh"

namespace sa_layers::cuda {

constexpr float kLog2E = 1.4426950408889634f;

// Weights stay below this. They are relative to a logit that is not the greatest, as long as they do.
template <typename T>
constexpr float kLargestWeight = std::is_same_v<T, __half> ? 32'768.0f : 1e18f;

// A softmax over taps that are not known yet, for two pixels of a thread and two weights of every eight: the exponent
// that weights are relative to, and their sum.
template <int kEights>
struct BandedSoftmax {
  float relative_to[kEights][4], total[kEights][4] = {};
};

// A row of the map as the taps of a warp's output pixels see it: the thread's first keys, its line and columns. The two
// rows of output pixels have different taps there, and one of them none in the first and the last such row.
struct BandedRow {
  const unsigned char* key;
  Line line;
  const Line* columns;
  bool has_tap[2];
};

// Logits of kTaps of them.
template <int kTaps, typename T, typename Mapping>
__device__ void find_logits(const BandedQuery<T, Mapping>& query, const MappingMatrices<Mapping>& matrices, int pair,
                            const BandedRow& row, int first_tap, float (&logits)[kTaps][Mapping::kEights][4]) {
  PairFeatures<Mapping> features[kTaps];
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap) {
    const Line column = row.columns[first_tap + tap];
    find_features(query, pair, row.key + column.pixel * Mapping::kKeyStride, row.line, column, features[tap]);
  }
  find_logits<T>(matrices, features, logits);
}

// Makes the weights of one row of output pixels relative to its first tap. With a lower limit, since minus infinity
// minus itself is no number.
template <typename T, typename Mapping>
__device__ void start_softmax(const BandedQuery<T, Mapping>& query, const MappingMatrices<Mapping>& matrices, int pair,
                              const BandedRow& row, int half, BandedSoftmax<Mapping::kEights>& softmax) {
  float logits[1][Mapping::kEights][4];
  find_logits<1>(query, matrices, pair, row, 0, logits);
#pragma unroll
  for (int eight = 0; eight < Mapping::kEights; ++eight) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i / 2 == half) softmax.relative_to[eight][i] = fmaxf(kLog2E * logits[0][eight][i], -1e37f);
    }
  }
}

// The greatest exponents of a row and of those before.
template <typename T, typename Mapping>
__device__ void find_greatest(const BandedQuery<T, Mapping>& query, const MappingMatrices<Mapping>& matrices, int pair,
                              const BandedRow& row, int kernel_width, const BandedSoftmax<Mapping::kEights>& softmax,
                              float (&greatest)[Mapping::kEights][4]) {
#pragma unroll
  for (int eight = 0; eight < Mapping::kEights; ++eight) {
#pragma unroll
    for (int i = 0; i < 4; ++i) greatest[eight][i] = softmax.relative_to[eight][i];
  }
#pragma unroll 1
  for (int tap = 0; tap < kernel_width; ++tap) {
    float logits[1][Mapping::kEights][4];
    find_logits<1>(query, matrices, pair, row, tap, logits);
#pragma unroll
    for (int eight = 0; eight < Mapping::kEights; ++eight) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float exponent = kLog2E * logits[0][eight][i];
        if (row.has_tap[i / 2] && exponent > greatest[eight][i]) greatest[eight][i] = exponent;
      }
    }
  }
}

// Writes the bands of kTaps taps of a row, and adds their weights to the totals.
template <int kTaps, typename T, typename Mapping>
__device__ void weigh_taps(const BandedQuery<T, Mapping>& query, const MappingMatrices<Mapping>& matrices, int pair,
                           const BandedRow& row, int first_tap, const Bands<T, Mapping::kWeights>& bands,
                           const float (&relative_to)[Mapping::kEights][4], float (&total)[Mapping::kEights][4]) {
  float logits[kTaps][Mapping::kEights][4];
  find_logits<kTaps>(query, matrices, pair, row, first_tap, logits);
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap) {
#pragma unroll
    for (int eight = 0; eight < Mapping::kEights; ++eight) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float weights[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float exponent = kLog2E * logits[tap][eight][2 * half + i] - relative_to[eight][2 * half + i];
          weights[i] = row.has_tap[half] ? power_of_two(exponent) : 0.0f;
          total[eight][2 * half + i] += weights[i];
        }
        bands.store(half, eight, first_tap + tap, pack<T>(weights[0], weights[1]));
      }
    }
  }
}

// The same for all taps of a row. Returns false, with the totals as they were, where weights are too large.
template <int kKernelWidth, typename T, typename Mapping>
__device__ bool weigh_row(const BandedQuery<T, Mapping>& query, const MappingMatrices<Mapping>& matrices, int pair,
                          const BandedRow& row, int kernel_width, const Bands<T, Mapping::kWeights>& bands,
                          BandedSoftmax<Mapping::kEights>& softmax) {
  constexpr int kEights = Mapping::kEights, kTaps = Mapping::kTapsAtOnce;
  float total[kEights][4];
#pragma unroll
  for (int eight = 0; eight < kEights; ++eight) {
#pragma unroll
    for (int i = 0; i < 4; ++i) total[eight][i] = softmax.total[eight][i];
  }
  const int width = kKernelWidth > 0 ? kKernelWidth : kernel_width;
  int tap = 0;
#pragma unroll(kKernelWidth > 0 ? kKernelWidth : 1)
  for (; tap + kTaps <= width; tap += kTaps) {
    weigh_taps<kTaps>(query, matrices, pair, row, tap, bands, softmax.relative_to, total);
  }
  if constexpr (kTaps > 1) {
#pragma unroll(kKernelWidth > 0 ? kKernelWidth : 1)
    for (; tap < width; ++tap) weigh_taps<1>(query, matrices, pair, row, tap, bands, softmax.relative_to, total);
  }
  bool too_large = false;
#pragma unroll
  for (int eight = 0; eight < kEights; ++eight) {
#pragma unroll
    for (int i = 0; i < 4; ++i) too_large |= total[eight][i] > kLargestWeight<T>;
  }
  if (any_of_warp(too_large)) return false;
#pragma unroll
  for (int eight = 0; eight < kEights; ++eight) {
#pragma unroll
    for (int i = 0; i < 4; ++i) softmax.total[eight][i] = total[eight][i];
  }
  return true;
}

// Hands numbers of a thread's pixels and weights to those that have the sums: [row of two][pixel][weight], in the
// memory of the bands, which is left as it was found.
template <int kWeights, int kEights>
__device__ void share_numbers(const float (&numbers)[kEights][4], const BandedTile& tile, float* to) {
  __syncwarp();
#pragma unroll
  for (int eight = 0; eight < kEights; ++eight) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int weight = 8 * eight + 2 * tile.pair() + i % 2;
      if (weight < kWeights) to[(i / 2 * kTileColumns + tile.pixel()) * kWeights + weight] = numbers[eight][i];
    }
  }
  __syncwarp();
}

// Makes the weights relative to the greatest exponents, and what was added up before with them.
template <typename T, typename Mapping>
__device__ void rescale(const float (&greatest)[Mapping::kEights][4], const BandedTile& tile,
                        const Bands<T, Mapping::kWeights>& bands, BandedSoftmax<Mapping::kEights>& softmax,
                        BandedSums<Mapping::kWeights>& sums) {
  float factors[Mapping::kEights][4];
#pragma unroll
  for (int eight = 0; eight < Mapping::kEights; ++eight) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      factors[eight][i] = 1;
      if (!(greatest[eight][i] > softmax.relative_to[eight][i])) continue;
      factors[eight][i] =
          softmax.total[eight][i] > 0 ? power_of_two(softmax.relative_to[eight][i] - greatest[eight][i]) : 0;
      softmax.total[eight][i] *= factors[eight][i], softmax.relative_to[eight][i] = greatest[eight][i];
    }
  }
  float* const shared = reinterpret_cast<float*>(bands.memory());
  share_numbers<Mapping::kWeights>(factors, tile, shared);
#pragma unroll
  for (int weight = 0; weight < Mapping::kWeights; ++weight) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sums.of[weight][i] *= shared[(i / 2 * kTileColumns + tile.pixel()) * Mapping::kWeights + weight];
    }
  }
  __syncwarp();
  bands.clear(tile.lane);
  __syncwarp();
}

template <int kKernelWidth, typename T, typename Mapping>
__device__ void attend_in_bands(const PairwiseAttention& problem, const BandedPlan& plan,
                                const PairwiseAttentionOperands<T>& operands) {
  constexpr int kWeights = Mapping::kWeights, kEights = Mapping::kEights;
  unsigned char* const memory = reinterpret_cast<unsigned char*>(shared_memory());
  const Footprint& footprint = problem.footprint;
  const int kernel_height = int(footprint.rows.kernel), kernel_width = int(footprint.columns.kernel);
  const BandedRegion region(footprint, plan);
  const BandedTile tile(plan);
  const bool zeros = footprint.mode == Padding::kZeros;
  const int first_weight = region.group * kWeights, all_weights = problem.weight_channels();

  Line* const rows = reinterpret_cast<Line*>(memory);
  Line* const columns = rows + plan.rows() + kernel_height - 1;
  const auto place_along = [&](const Axis& axis, int64_t size, int coordinate, bool constant) {
    return [&problem, &operands, axis, size, coordinate, constant](int pixel, Line& line) {
      const float there = place<float>(pixel, axis.size, size);
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
  place_lines(footprint.rows, footprint.mode, region.row, plan.rows() + kernel_height - 1, region.first_row,
              region.last_row, plan.region_rows, plan.row_pixels, rows,
              place_along(footprint.rows, problem.position_height, 1, true));
  place_lines(footprint.columns, footprint.mode, region.column, plan.columns_reached(), region.first_column,
              region.last_column, plan.region_columns, 1, columns,
              place_along(footprint.columns, problem.position_width, 0, false));
  copy_mapping<Mapping>(problem, operands, first_weight, memory + plan.once);
  copy_keys<Mapping::kChannels>(region, plan, operands.key + region.image * problem.key_steps.image,
                                problem.key_steps.row, problem.key_steps.pixel, zeros, memory + plan.keys,
                                Mapping::kKeyStride);
  copy_values<kWeights>(region, plan, operands.value + region.image * problem.value_steps.image, first_weight,
                        all_weights, problem.value_steps.row, problem.value_steps.pixel, zeros, memory + plan.values,
                        Mapping::kValueStride);
  const Bands<T, kWeights> bands(memory + plan.warps_at + int(threadIdx.x) / 32 * Bands<T, kWeights>::kBytes, tile);
  bands.clear(tile.lane);
  __syncthreads();

  const PairNorm* const norms = reinterpret_cast<const PairNorm*>(memory + plan.once);
  const BandedQuery<T, Mapping> query(problem, operands, region, tile, norms);
  const MappingMatrices<Mapping> matrices(memory + plan.once, tile.lane);
  const Line* const tile_columns = columns + tile.column_tile * kTileColumns;
  const unsigned char* const values = memory + plan.values +
                                      tile_columns[value_column(tile.lane)].pixel * Mapping::kValueStride +
                                      value_weight(tile.lane) * 16;
  BandedSoftmax<kEights> softmax;
  BandedSums<kWeights> sums;
#pragma unroll
  for (int eight = 0; eight < kEights; ++eight) {
#pragma unroll
    for (int i = 0; i < 4; ++i) softmax.relative_to[eight][i] = 0;
  }
  const unsigned char* const keys = memory + plan.keys + 4 * query.first_pair();
#pragma unroll 1
  for (int step = 0; step <= kernel_height; ++step) {
    const Line line = rows[tile.row_tile * kTileRows + step];
    const BandedRow row = {
        keys + line.pixel * Mapping::kKeyStride, line, tile_columns + tile.pixel(), {step < kernel_height, step > 0}};
    if (step < 2) start_softmax(query, matrices, tile.pair(), row, step, softmax);
    while (!weigh_row<kKernelWidth>(query, matrices, tile.pair(), row, kernel_width, bands, softmax)) {
      float greatest[kEights][4];
      find_greatest(query, matrices, tile.pair(), row, kernel_width, softmax, greatest);
      rescale<T, Mapping>(greatest, tile, bands, softmax, sums);
    }
    __syncwarp();
    sums.add(bands, tile.lane, values + line.pixel * Mapping::kValueStride);
    __syncwarp();
  }

  float factors[kEights][4];
#pragma unroll
  for (int eight = 0; eight < kEights; ++eight) {
#pragma unroll
    for (int i = 0; i < 4; ++i) factors[eight][i] = reciprocal(softmax.total[eight][i]);
  }
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
        sums, tile, half, all_weights, first_weight, operands.output_scale, operands.output_shift,
        [&](int weight) { return of_pixel[weight]; }, to);
  }
}

// The threads of a block at most, and the blocks of a multiprocessor that registers have room for at least.
template <typename Mapping>
struct BandedLimits {
  static constexpr int kWarps = 8, kBlocks = Mapping::kChannels < 32 ? 2 : 1;
  static constexpr int kRegisters = kBlocks == 2 ? 128 : 255;
};

// kKernelWidth is 0 for one of run time.
template <typename T, typename Mapping, int kKernelWidth>
__global__ void __launch_bounds__(32 * BandedLimits<Mapping>::kWarps, BandedLimits<Mapping>::kBlocks)
    banded_pairwise_attention_tiles(const __grid_constant__ PairwiseAttention problem,
                                    const __grid_constant__ BandedPlan plan,
                                    const __grid_constant__ PairwiseAttentionOperands<T> operands) {
  // Older architectures lack its instructions, and the launcher does without.
  if constexpr (has_tensor_cores<__nv_bfloat16>()) attend_in_bands<kKernelWidth, T, Mapping>(problem, plan, operands);
}

}  // namespace sa_layers::cuda
