// A linear layer of rows in shared memory on tensor cores: its weights are copied there as factors, a row for each
// output, and a warp computes tiles of its outputs.
#pragma once

#include "cuda/factor.cuh"
#include "cuda/matrix_tiles.h"

namespace sa_layers::cuda {

// Copies `columns` of a layer's outputs from the one numbered `first`, and others up to whole eights: [output][input],
// inputs filled up with zeros. Outputs beyond the last one are zeros, or begin anew.
template <typename F>
__device__ void copy_weight_rows(const float* weight, const WeightSteps& steps, int inputs, int outputs, bool repeat,
                                 int padded_inputs, int first, int columns, F* to, int stride) {
  const int quads = padded_inputs / 4, size = (columns + 7) / 8 * 8 * quads;
#pragma unroll 2
  for (int index = int(threadIdx.x); index < size; index += int(blockDim.x)) {
    const int column = index / quads, input = (index - column * quads) * 4;
    int output = first + column;
    if (repeat && output >= outputs) output %= outputs;
    const float* const from = weight + output * steps.output + input * steps.input;
    Four<float> numbers = {};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (output < outputs && input + i < inputs) numbers.of[i] = from[i * steps.input];
      if (kLargestFactor<F> > 0 && numbers.of[i] < -kLargestFactor<F>) numbers.of[i] = -kLargestFactor<F>;
    }
    store_factors(numbers, to + column * stride + input);
  }
}

// Where a layer's outputs go: to factors of the next one, after a ReLU, or, where these are null, to sums.
template <typename F>
struct LayerOutput {
  F* factors;
  float* sums;
  int stride;
};

// Tiles of kWarpRows by 8 * kColumns. Rows and columns beyond the last are read as the last, and not stored.
template <int kColumns, typename F>
__device__ void multiply_tiles(const F* features, int stride, int rows, int inputs, const F* weight, const float* bias,
                               int outputs, bool repeat, int first, int columns, const LayerOutput<F>& output) {
  constexpr int kRows = kWarpRows / 16, kPiece = 16 / sizeof(F), kLoads = (kColumns + 1) / 2;
  const int lane = int(threadIdx.x) % 32, column_tiles = (columns + 8 * kColumns - 1) / (8 * kColumns);
  const int tiles = (rows + kWarpRows - 1) / kWarpRows * column_tiles, last_column = (columns + 7) / 8 * 8 - 1;
  for (int tile = int(threadIdx.x) / 32; tile < tiles; tile += int(blockDim.x) / 32) {
    const int row = tile / column_tiles * kWarpRows, column = tile % column_tiles * 8 * kColumns;
    // What this thread gives load_matrices: of rows the upper eight, the lower, then their next pieces; of columns a
    // piece, the next, then the same of the next eight columns.
    const F *left[kRows], *right[kLoads];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      left[r] = features + least(row + 16 * r + lane % 16, rows - 1) * stride + lane / 16 * kPiece;
    }
    const int next = lane / 8 % 2 * kPiece;
#pragma unroll
    for (int c = 0; c < kLoads; ++c) {
      right[c] = weight + least(column + 16 * c + lane / 16 * 8 + lane % 8, last_column) * stride + next;
    }
    const int pair = lane % 4 * 2;
    float sums[kRows][kColumns][4];
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        int index = first + column + 8 * c + pair + i;
        if (repeat && index >= outputs) index %= outputs;
        const float constant = index < outputs ? bias[index] : 0.0f;
#pragma unroll
        for (int r = 0; r < kRows; ++r) sums[r][c][i] = sums[r][c][i + 2] = constant;
      }
    }
    uint32_t lefts[kRows][4], rights[kColumns][2];
    const auto load_rights = [&](int from) {
      if constexpr (kColumns == 1) {
        load_matrices(right[0] + from, rights[0]);
      } else {
#pragma unroll
        for (int c = 0; c < kLoads; ++c) {
          uint32_t words[4];
          load_matrices(right[c] + from, words);
          rights[2 * c][0] = words[0], rights[2 * c][1] = words[1];
          rights[2 * c + 1][0] = words[2], rights[2 * c + 1][1] = words[3];
        }
      }
    };
    __syncwarp();  // from here on all of a warp do the same at once
    int input = 0;
#pragma unroll kStepsAtOnce
    for (; input + 2 * kPiece <= inputs; input += 2 * kPiece) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) load_matrices(left[r] + input, lefts[r]);
      load_rights(input);
      multiply_accumulate<F>(sums, lefts, rights);
    }
    if (input < inputs) {  // a last piece alone, and zeros
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        uint32_t words[2];
        load_matrices(left[r] + input, words);
        lefts[r][0] = words[0], lefts[r][1] = words[1], lefts[r][2] = lefts[r][3] = 0;
      }
      load_rights(input - next);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) rights[c][1] = 0;
      multiply_accumulate<F>(sums, lefts, rights);
    }
#pragma unroll
    for (int r = 0; r < 2 * kRows; ++r) {
      const int to_row = row + 8 * r + lane / 4;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int to_column = column + 8 * c + pair;
        if (to_row < rows && to_column < columns) {
          const float* const two = sums[r / 2][c] + r % 2 * 2;
          const int to = to_row * output.stride + first + to_column;
          if (output.factors) {
            Two<F> factors;
            round_to_factor(relu(two[0]), factors.of[0]), round_to_factor(relu(two[1]), factors.of[1]);
            *reinterpret_cast<Two<F>*>(output.factors + to) = factors;
          } else {
            *reinterpret_cast<Two<float>*>(output.sums + to) = {{two[0], two[1]}};
          }
        }
      }
    }
  }
}

// `columns` outputs of a layer from the one numbered `first`, of all rows, from weights as copy_weight_rows leaves
// them, whose rows are as far apart as those of the features: in the largest tiles that give every warp one.
template <typename F>
__device__ void multiply_on_tensor_cores(const F* features, int stride, int rows, int inputs, const F* weight,
                                         const float* bias, int outputs, bool repeat, int first, int columns,
                                         const LayerOutput<F>& output) {
  const int warps = int(blockDim.x) / 32, row_tiles = (rows + kWarpRows - 1) / kWarpRows;
  const auto fill = [&](int width) {
    return columns > width / 2 && row_tiles * ((columns + width - 1) / width) >= warps;
  };
  if (fill(32)) {
    multiply_tiles<4>(features, stride, rows, inputs, weight, bias, outputs, repeat, first, columns, output);
  } else if (fill(16)) {
    multiply_tiles<2>(features, stride, rows, inputs, weight, bias, outputs, repeat, first, columns, output);
  } else {
    multiply_tiles<1>(features, stride, rows, inputs, weight, bias, outputs, repeat, first, columns, output);
  }
}

}  // namespace sa_layers::cuda
