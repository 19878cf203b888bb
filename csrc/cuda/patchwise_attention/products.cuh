// The two matrix products of the general kernel of patchwise attention, the hidden layer and the weights: by multiply-
// adds or on tensor cores, with one interface.
#pragma once

#include <cstdint>

#include "cuda/common/factor.cuh"
#include "cuda/common/mma.cuh"
#include "cuda/common/pack.cuh"
#include "cuda/common/tensor_tiles.cuh"
#include "cuda/patchwise_attention/features.cuh"
#include "cuda/patchwise_attention/plan.h"
#include "footprint.h"

namespace sa_layers::cuda {

// The rows of the hidden layer's matrix, (feature taps, feature channels, Cw), that belong to a panel, `stride` per
// tap.
struct HiddenMatrix {
  Panel panel;
  int stride, feature_channels, weight_channels;

  // The offset of a row; -1 for a row of zeros.
  __device__ int64_t row(int index) const {
    const int tap = panel.taps == 1 ? 0 : index / stride, channel = index - tap * stride;
    if (tap >= panel.taps || channel >= panel.channels) return -1;
    return (int64_t(panel.tap + tap) * feature_channels + panel.channel + channel) * weight_channels;
  }
  // The offset of a column in a row; -1 for a column of zeros.
  __device__ int column(int index) const { return index < weight_channels ? index : -1; }
  // How many columns from here on are contiguous.
  __device__ int contiguous(int index) const { return weight_channels - index; }
};

// A slice of the weights of some taps in their matrix, (Cw, taps, Cw), `width` columns per tap.
struct WeightMatrix {
  int tap, taps, first, width, all_taps, weight_channels;

  __device__ int64_t row(int index) const {
    return index < weight_channels ? int64_t(index) * all_taps * weight_channels : -1;
  }
  // One or two weights are repeated to fill four.
  __device__ int column(int index) const {
    const int of_tap = index / width, weight = first + index % width;
    if (of_tap >= taps || (weight >= weight_channels && weight_channels > 2)) return -1;
    return (tap + of_tap) * weight_channels + (weight_channels > 2 ? weight : weight % weight_channels);
  }
  __device__ int contiguous(int index) const {
    return index / width < taps ? weight_channels - first - index % width : 0;
  }
};

// Copies rows of a matrix to shared memory.
template <typename C, typename Matrix>
__device__ void copy_rows(const Matrix& matrix, const C* from, bool aligned, int rows, int columns, C* to, int stride) {
  const ThreadPosition place(columns / 4);
  const int first = 4 * place.column;
  const bool at_once = aligned && matrix.contiguous(first) >= 4;
  int column[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) column[i] = matrix.column(first + i);
#pragma unroll 4
  for (int row = place.row; row < rows; row += place.rows) {
    const int64_t begin = matrix.row(row);
    Pack<C, 4> numbers = {};
    if (begin >= 0 && at_once) {
      numbers = load_channels(from + begin + column[0], 4, true);
    } else if (begin >= 0) {
#pragma unroll
      for (int i = 0; i < 4; ++i) numbers[i] = column[i] < 0 ? C(0) : from[begin + column[i]];
    }
    store_pack(numbers, to + row * stride + first);
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

// Four outputs of some rows of a product of matrices in shared memory, in a thread's registers.
template <typename C>
struct SumTile {
  int from[kPatchwiseRows];  // the offsets of the left operand's rows
  Pack<C, 4> sums[kPatchwiseRows];

  // Rows group, group + groups, ...; those beyond the last are clamped.
  __device__ void choose_rows(int group, int groups, int rows, int stride) {
#pragma unroll
    for (int r = 0; r < kPatchwiseRows; ++r) from[r] = min(group + r * groups, rows - 1) * stride;
  }
  __device__ void begin(const Pack<C, 4>& constants) {
#pragma unroll
    for (int r = 0; r < kPatchwiseRows; ++r) sums[r] = constants;
  }
  // Accumulates four consecutive products along the inner dimension, every `step` from `first` on.
  __device__ void add(const C* left, const C* right, int stride, int first, int end, int step) {
#pragma unroll 1
    for (int inner = first; inner < end; inner += step) {
      Pack<C, 4> columns[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) columns[k] = load_pack<4>(right + (inner + k) * stride);
#pragma unroll
      for (int r = 0; r < kPatchwiseRows; ++r) {
        const Pack<C, 4> row = load_pack<4>(left + from[r] + inner);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
#pragma unroll
          for (int i = 0; i < 4; ++i) sums[r][i] += row[k] * columns[k][i];
        }
      }
    }
  }
};

template <typename T>
struct MultiplyAdds {
  using Number = Compute<T>;

  template <typename Matrix>
  static __device__ void copy_matrix(const Matrix& matrix, const Number* from, bool aligned, int inner, int outer,
                                     Number* to, int stride) {
    copy_rows(matrix, from, aligned, inner, outer, to, stride);
  }

  // The hidden layer's sums over all panels. Parts of the block split the depth of each panel.
  class Hidden {
   public:
    __device__ Hidden(const PatchwiseAttentionPlan& plan, int pixels) {
      const int packs = plan.hidden / 4, thread = int(threadIdx.x);
      groups_ = (plan.pixels + kPatchwiseRows - 1) / kPatchwiseRows;
      column_ = thread % packs * 4, group_ = thread / packs % groups_, part_ = thread / (packs * groups_);
      tile_.choose_rows(group_, groups_, pixels, plan.left_stride);
      tile_.begin({});
    }
    __device__ void add(const PatchwiseAttentionPlan& plan, const Number* left, const Number* right, int depth) {
      if (part_ < plan.parts) tile_.add(left, right + column_, plan.right_stride, 4 * part_, depth, 4 * plan.parts);
    }
    // Stores plan.hidden sums per pixel, part after part.
    __device__ void store(const PatchwiseAttentionPlan& plan, int pixels, Number* partial) const {
      if (part_ >= plan.parts) return;
#pragma unroll
      for (int r = 0; r < kPatchwiseRows; ++r) {
        const int row = group_ + r * groups_;
        if (row < pixels) store_pack(tile_.sums[r], partial + (part_ * plan.pixels + row) * plan.hidden + column_);
      }
    }

   private:
    int groups_, column_, group_, part_;
    SumTile<Number> tile_;
  };

  // The weights of a round, a row of `columns` numbers per pixel.
  static __device__ void make_weights(const PatchwiseAttentionPlan& plan, int pixels, int columns, const Number* hidden,
                                      const Number* matrix, const Number* constants, Number* weights) {
    const int groups = (pixels + kPatchwiseRows - 1) / kPatchwiseRows, packs = columns / 4;
    for (int index = int(threadIdx.x); index < groups * packs; index += int(blockDim.x)) {
      const int column = index % packs * 4, group = index / packs;
      SumTile<Number> tile;
      tile.choose_rows(group, groups, pixels, plan.hidden_stride);
      tile.begin(load_pack<4>(constants + column));
      tile.add(hidden, matrix + column, plan.matrix_stride, 0, plan.hidden, 4);
#pragma unroll
      for (int r = 0; r < kPatchwiseRows; ++r) {
        const int row = group + r * groups;
        if (row < pixels) store_pack(tile.sums[r], weights + row * plan.weights_stride + column);
      }
    }
  }
};

// Copies the columns of a matrix, rounded to operands, as rows of `inner` numbers: neighbouring threads read
// neighbouring columns, and write to different banks.
template <typename F, typename Matrix>
__device__ void copy_columns(const Matrix& matrix, const float* from, int inner, int outer, F* to, int stride) {
  constexpr int kVector = 16 / sizeof(F);
  const int size = outer * (inner / kVector);
#pragma unroll 2
  for (int index = int(threadIdx.x); index < size; index += int(blockDim.x)) {
    const int first = index / outer * kVector, row = index % outer, column = matrix.column(row);
    Pack<F, kVector> piece;
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      const int64_t begin = matrix.row(first + k);
      float number = begin < 0 || column < 0 ? 0.0f : from[begin + column];
      if (kLargestFactor<F> > 0 && number < -kLargestFactor<F>) number = -kLargestFactor<F>;
      round_to_factor(number, piece[k]);
    }
    *reinterpret_cast<Pack<F, kVector>*>(to + row * stride + first) = piece;
  }
}

template <typename F>
struct TensorCores {
  using Number = F;

  template <typename Matrix>
  static __device__ void copy_matrix(const Matrix& matrix, const float* from, bool, int inner, int outer, F* to,
                                     int stride) {
    copy_columns(matrix, from, inner, outer, to, stride);
  }

  // The hidden layer's sums over all panels. Parts of the block split the depth of each panel.
  class Hidden {
   public:
    __device__ Hidden(const PatchwiseAttentionPlan& plan, int pixels) {
      const int warp = int(threadIdx.x) / 32, all_column_tiles = (plan.hidden + kWarpColumns - 1) / kWarpColumns;
      const int all_row_tiles = (plan.pixels + kWarpRows - 1) / kWarpRows;
      column_ = warp % all_column_tiles * kWarpColumns, row_ = warp / all_column_tiles % all_row_tiles * kWarpRows;
      part_ = warp / (all_column_tiles * all_row_tiles), last_row_ = pixels - 1;
    }
    __device__ void add(const PatchwiseAttentionPlan& plan, const F* left, const F* right, int depth) {
      if (part_ >= plan.parts) return;
      __syncwarp();  // the warp's threads reconverge
      const int columns = plan.hidden - column_;
      if (columns <= 8) {
        add_tiles<1>(plan, left, right, depth);
      } else if (columns <= 16) {
        add_tiles<2>(plan, left, right, depth);
      } else {
        add_tiles<kWarpColumns / 8>(plan, left, right, depth);
      }
    }
    // Stores plan.hidden sums per pixel, part after part.
    __device__ void store(const PatchwiseAttentionPlan& plan, int pixels, float* partial) const {
      if (part_ >= plan.parts) return;
      const int lane = int(threadIdx.x) % 32;
#pragma unroll
      for (int r = 0; r < 2 * kRows; ++r) {
        const int row = row_ + 8 * r + lane / 4;
#pragma unroll
        for (int c = 0; c < kWarpColumns / 8; ++c) {
          const int column = column_ + 8 * c + lane % 4 * 2;
          const float* const two = sums_[c][r / 2][0] + r % 2 * 2;
          if (row >= pixels || column >= plan.hidden) continue;
          *reinterpret_cast<Pack<float, 2>*>(partial + (part_ * plan.pixels + row) * plan.hidden +
                                             column) = {{two[0], two[1]}};
        }
      }
    }

   private:
    static constexpr int kVector = 16 / sizeof(F), kRows = kWarpRows / 16;

    // Rows and columns beyond the last are clamped.
    template <int kColumnTiles>
    __device__ void add_tiles(const PatchwiseAttentionPlan& plan, const F* left, const F* right, int depth) {
      constexpr int kLoads = (kColumnTiles + 1) / 2;
      // The offsets of the addresses for load_matrices, as in multiply_tiles.
      const int lane = int(threadIdx.x) % 32;
      int lefts_at[kRows], rights_at[kLoads];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        lefts_at[r] = min(row_ + 16 * r + lane % 16, last_row_) * plan.left_stride + lane / 16 * kVector;
      }
#pragma unroll
      for (int c = 0; c < kLoads; ++c) {
        const int column = min(column_ + 16 * c + lane / 16 * 8 + lane % 8, plan.hidden - 1);
        rights_at[c] = column * plan.right_stride + lane / 8 % 2 * kVector;
      }
#pragma unroll kStepsAtOnce
      for (int inner = 2 * kVector * part_; inner < depth; inner += 2 * kVector * plan.parts) {
        uint32_t lefts[kRows][4], rights[kColumnTiles][1][2];
#pragma unroll
        for (int r = 0; r < kRows; ++r) load_matrices(left + lefts_at[r] + inner, lefts[r]);
        if constexpr (kColumnTiles == 1) load_matrices(right + rights_at[0] + inner, rights[0][0]);
#pragma unroll
        for (int c = 0; c + 1 < kColumnTiles; c += 2) {
          uint32_t words[4];
          load_matrices(right + rights_at[c / 2] + inner, words);
          rights[c][0][0] = words[0], rights[c][0][1] = words[1];
          rights[c + 1][0][0] = words[2], rights[c + 1][0][1] = words[3];
        }
#pragma unroll
        for (int c = 0; c < kColumnTiles; ++c) multiply_accumulate<F>(sums_[c], lefts, rights[c]);
      }
    }

    int column_, row_, part_, last_row_;
    float sums_[kWarpColumns / 8][kRows][1][4] = {};  // by tiles of eight columns
  };

  // The weights of a round, a row of plan.weights_stride numbers per pixel.
  static __device__ void make_weights(const PatchwiseAttentionPlan& plan, int pixels, int columns, const F* hidden,
                                      const F* matrix, const float* constants, float* weights) {
    multiply_on_tensor_cores(hidden, plan.hidden_stride, pixels, plan.hidden, matrix, constants, columns, false, 0,
                             columns, LayerOutput<F>{nullptr, weights, plan.weights_stride});
  }
};

}  // namespace sa_layers::cuda
