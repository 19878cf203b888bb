// A linear layer of rows in shared memory: its weights are copied there, and a thread computes tiles of its outputs.
#pragma once

#include "cuda/four.cuh"
#include "cuda/matrix_tiles.h"

namespace sa_layers::cuda {

// Copies `columns` of a layer's outputs from the one numbered `first`: (output, input) becomes [input][output], filled
// up with zeros; outputs beyond the last one begin anew. Neighbouring threads read eight inputs of an output, which lie
// side by side in memory, and write to different banks.
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

// `columns` outputs of a layer from the one numbered `first`, of all rows, from weights as copy_weight leaves them. A
// thread computes four outputs of some rows at a time; the last of them may be the same row again.
template <typename C>
__device__ void multiply(const C* features, int stride, int rows, int inputs, const C* weight, int weight_stride,
                         const C* bias, int outputs, bool repeat, bool rectify, int first, int columns, C* result,
                         int result_stride) {
  constexpr int kRows = tile_rows(sizeof(C));
  const int groups = (rows + kRows - 1) / kRows, quads = columns / 4;
  for (int tile = int(threadIdx.x); tile < groups * quads; tile += int(blockDim.x)) {
    const int column = tile % quads * 4, group = tile / quads;  // rows group, group + groups, ...
    int from[kRows];
    Four<C> sums[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) from[r] = least(group + r * groups, rows - 1) * stride;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int output = repeat ? (first + column + i) % outputs : first + column + i;
      const C constant = output < outputs ? bias[output] : C(0);
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[r].of[i] = constant;
    }
#pragma unroll 1
    for (int input = 0; input < inputs; input += 4) {
      Four<C> weights[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) weights[k] = load_four(weight + (input + k) * weight_stride + column);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const Four<C> row = load_four(features + from[r] + input);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
#pragma unroll
          for (int i = 0; i < 4; ++i) sums[r].of[i] += row.of[k] * weights[k].of[i];
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int row = group + r * groups;
      if (row >= rows) break;
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[r].of[i] = rectify ? relu(sums[r].of[i]) : sums[r].of[i];
      store_four(sums[r], result + row * result_stride + first + column);
    }
  }
}

}  // namespace sa_layers::cuda
