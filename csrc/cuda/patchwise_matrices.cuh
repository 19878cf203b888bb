// The matrices of patchwise attention's mapping as its products read them: which of their rows and columns.
#pragma once

#include "cuda/patchwise_features.cuh"

namespace sa_layers::cuda {

// Of the hidden layer's matrix, (feature taps, feature channels, Cw), the rows of a panel, of which `stride` numbers
// belong to a tap.
struct HiddenMatrix {
  Panel panel;
  int stride, feature_channels, weight_channels;

  // Where a row begins, -1 for a row of zeros.
  __device__ int64_t row(int index) const {
    const int tap = panel.taps == 1 ? 0 : index / stride, channel = index - tap * stride;
    if (tap >= panel.taps || channel >= panel.channels) return -1;
    return (int64_t(panel.tap + tap) * feature_channels + panel.channel + channel) * weight_channels;
  }
  // Where a column lies in a row, -1 for a column of zeros.
  __device__ int column(int index) const { return index < weight_channels ? index : -1; }
  // How many of four columns lie side by side.
  __device__ int side_by_side(int index) const { return weight_channels - index; }
};

// Of the matrix of weights, (Cw, taps, Cw), a slice of the weights of some taps, `width` columns for each.
struct WeightMatrix {
  int tap, taps, first, width, all_taps, weight_channels;

  __device__ int64_t row(int index) const {
    return index < weight_channels ? int64_t(index) * all_taps * weight_channels : -1;
  }
  // One or two weights are repeated.
  __device__ int column(int index) const {
    const int of_tap = index / width, weight = first + index % width;
    if (of_tap >= taps || (weight >= weight_channels && weight_channels > 2)) return -1;
    return (tap + of_tap) * weight_channels + (weight_channels > 2 ? weight : weight % weight_channels);
  }
  __device__ int side_by_side(int index) const {
    return index / width < taps ? weight_channels - first - index % width : 0;
  }
};

// Copies rows of a matrix side by side.
template <typename C, typename Matrix>
__device__ void copy_rows(const Matrix& matrix, const C* from, bool aligned, int rows, int columns, C* to, int stride) {
  const Place place(columns / 4);
  const int first = 4 * place.column;
  const bool at_once = aligned && matrix.side_by_side(first) >= 4;
  int column[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) column[i] = matrix.column(first + i);
#pragma unroll 4
  for (int row = place.row; row < rows; row += place.rows) {
    const int64_t begin = matrix.row(row);
    Four<C> numbers = {};
    if (begin >= 0 && at_once) {
      numbers = load_channels(from + begin + column[0], 4, true);
    } else if (begin >= 0) {
#pragma unroll
      for (int i = 0; i < 4; ++i) numbers.of[i] = column[i] < 0 ? C(0) : from[begin + column[i]];
    }
    store_four(numbers, to + row * stride + first);
  }
}

// The biases of the weights of a round.
template <typename C>
__device__ void copy_constants(const WeightMatrix& matrix, const C* bias, int columns, C* to) {
  for (int index = int(threadIdx.x); index < columns; index += int(blockDim.x)) {
    const int column = matrix.column(index);
    to[index] = column < 0 ? C(0) : bias[column];
  }
}

}  // namespace sa_layers::cuda
