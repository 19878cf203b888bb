// A linear layer of rows in shared memory by multiply-adds: its weights are copied to shared memory, and each thread
// computes tiles of the outputs.
#pragma once

#include <cstdint>

#include "cuda/common/element.cuh"
#include "cuda/common/pack.cuh"
#include "cuda/common/plan.h"
#include "footprint.h"

namespace sa_layers::cuda {

// Copies the weights of `columns` outputs of a layer, starting at `first`, transposed to [input][output] and padded
// with zeros; with `repeat`, outputs beyond the last repeat from the first. Neighbouring threads read eight contiguous
// inputs of an output, and write to different banks.
template <typename C>
__device__ void copy_weight(const C* weight, const WeightSteps& steps, int inputs, int outputs, bool repeat,
                            int padded_inputs, int first, int columns, C* to, int stride) {
  const int input_blocks = (padded_inputs + 7) / 8, size = 32 * input_blocks * (columns / 4);
  for (int index = int(threadIdx.x); index < size; index += int(blockDim.x)) {
    const int block = index / 32, lane = index % 32;
    const int input = block % input_blocks * 8 + lane % 8, column = block / input_blocks * 4 + lane / 8;
    if (input >= padded_inputs) continue;
    const int output = repeat ? (first + column) % outputs : first + column;
    to[input * stride + column] =
        input < inputs && output < outputs ? weight[output * steps.output + input * steps.input] : C(0);
  }
}

// Computes `columns` outputs of a layer, starting at `first`, for all rows, from weights laid out by copy_weight. A
// thread computes four outputs of some rows at a time; rows beyond the last are clamped.
template <typename C>
__device__ void multiply(const C* features, int stride, int rows, int inputs, const C* weight, int weight_stride,
                         const C* bias, int outputs, bool repeat, bool rectify, int first, int columns, C* result,
                         int result_stride) {
  constexpr int kRows = tile_rows(sizeof(C));
  const int groups = (rows + kRows - 1) / kRows, packs = columns / 4;
  for (int tile = int(threadIdx.x); tile < groups * packs; tile += int(blockDim.x)) {
    const int column = tile % packs * 4, group = tile / packs;  // rows group, group + groups, ...
    int from[kRows];
    Pack<C, 4> sums[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) from[r] = min(group + r * groups, rows - 1) * stride;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int output = repeat ? (first + column + i) % outputs : first + column + i;
      const C constant = output < outputs ? bias[output] : C(0);
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[r][i] = constant;
    }
#pragma unroll 1
    for (int input = 0; input < inputs; input += 4) {
      Pack<C, 4> weights[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) weights[k] = load_pack<4>(weight + (input + k) * weight_stride + column);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const Pack<C, 4> row = load_pack<4>(features + from[r] + input);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
#pragma unroll
          for (int i = 0; i < 4; ++i) sums[r][i] += row[k] * weights[k][i];
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int row = group + r * groups;
      if (row >= rows) break;
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[r][i] = rectify ? relu(sums[r][i]) : sums[r][i];
      store_pack(sums[r], result + row * result_stride + first + column);
    }
  }
}

}  // namespace sa_layers::cuda
