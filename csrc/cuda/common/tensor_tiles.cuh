// A linear layer of rows in shared memory on tensor cores: its weights are copied to shared memory, a row for each
// output, and each warp computes tiles of the outputs.
#pragma once

#include <cstdint>

#include "cuda/common/factor.cuh"
#include "cuda/common/mma.cuh"
#include "cuda/common/pack.cuh"
#include "cuda/common/plan.h"
#include "footprint.h"

namespace sa_layers::cuda {

// Copies the weights of `columns` outputs of a layer, starting at `first` and rounded up to a multiple of eight, as
// [output][input] with zero-padded inputs. Outputs beyond the last are zeros, or repeat from the first.
template <typename F>
__device__ void copy_weight_rows(const float* weight, const WeightSteps& steps, int inputs, int outputs, bool repeat,
                                 int padded_inputs, int first, int columns, F* to, int stride) {
  const int packs = padded_inputs / 4, size = (columns + 7) / 8 * 8 * packs;
#pragma unroll 2
  for (int index = int(threadIdx.x); index < size; index += int(blockDim.x)) {
    const int column = index / packs, input = (index - column * packs) * 4;
    int output = first + column;
    if (repeat && output >= outputs) output %= outputs;
    const float* const from = weight + output * steps.output + input * steps.input;
    Pack<float, 4> numbers = {};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (output < outputs && input + i < inputs) numbers[i] = from[i * steps.input];
      if (kLargestFactor<F> > 0 && numbers[i] < -kLargestFactor<F>) numbers[i] = -kLargestFactor<F>;
    }
    store_factors(numbers, to + column * stride + input);
  }
}

// Where a layer's outputs go: to the operands of the next layer, after a ReLU, or to sums where these are null.
template <typename F>
struct LayerOutput {
  F* factors;
  float* sums;
  int stride;
};

// Warp tiles of kWarpRows by 8 * kColumns. Rows and columns beyond the last are clamped, and not stored.
template <int kColumns, typename F>
__device__ void multiply_tiles(const F* features, int stride, int rows, int inputs, const F* weight, const float* bias,
                               int outputs, bool repeat, int first, int columns, const LayerOutput<F>& output) {
  constexpr int kRows = kWarpRows / 16, kVector = 16 / sizeof(F), kLoads = (kColumns + 1) / 2;
  const int lane = int(threadIdx.x) % 32, column_tiles = (columns + 8 * kColumns - 1) / (8 * kColumns);
  const int tiles = (rows + kWarpRows - 1) / kWarpRows * column_tiles, last_column = (columns + 7) / 8 * 8 - 1;
  for (int tile = int(threadIdx.x) / 32; tile < tiles; tile += int(blockDim.x) / 32) {
    const int row = tile / column_tiles * kWarpRows, column = tile % column_tiles * 8 * kColumns;
    // The addresses for load_matrices. Left: the upper eight rows, the lower eight, then the next 16 bytes of both.
    // Right: 16 bytes of eight columns, the next 16 bytes, then both of the next eight columns.
    const F *left[kRows], *right[kLoads];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      left[r] = features + min(row + 16 * r + lane % 16, rows - 1) * stride + lane / 16 * kVector;
    }
    const int next = lane / 8 % 2 * kVector;
#pragma unroll
    for (int c = 0; c < kLoads; ++c) {
      right[c] = weight + min(column + 16 * c + lane / 16 * 8 + lane % 8, last_column) * stride + next;
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
    __syncwarp();  // the warp's threads reconverge
    int input = 0;
#pragma unroll kStepsAtOnce
    for (; input + 2 * kVector <= inputs; input += 2 * kVector) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) load_matrices(left[r] + input, lefts[r]);
      load_rights(input);
      multiply_accumulate<F>(sums, lefts, rights);
    }
    if (input < inputs) {  // the last half step, padded with zeros
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
            Pack<F, 2> factors;
            round_to_factor(relu(two[0]), factors[0]), round_to_factor(relu(two[1]), factors[1]);
            *reinterpret_cast<Pack<F, 2>*>(output.factors + to) = factors;
          } else {
            *reinterpret_cast<Pack<float, 2>*>(output.sums + to) = {{two[0], two[1]}};
          }
        }
      }
    }
  }
}

// Computes `columns` outputs of a layer, starting at `first`, for all rows, from weights laid out by copy_weight_rows
// with the row stride of the features. Chooses the largest tiles that give every warp at least one.
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
