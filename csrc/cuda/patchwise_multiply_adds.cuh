// The two products of patchwise attention by multiply-adds of single threads.
#pragma once

#include "cuda/patchwise_matrices.cuh"

namespace sa_layers::cuda {

// Four outputs of some rows of a product of matrices in shared memory, in the registers of a thread.
template <typename C>
struct SumTile {
  int from[kPatchwiseRows];  // where the rows of the left factor begin
  Four<C> sums[kPatchwiseRows];

  // Rows group, group + groups, ...; the last of them may be the same row again.
  __device__ void choose_rows(int group, int groups, int rows, int stride) {
#pragma unroll
    for (int r = 0; r < kPatchwiseRows; ++r) from[r] = least(group + r * groups, rows - 1) * stride;
  }
  __device__ void begin(const Four<C>& constants) {
#pragma unroll
    for (int r = 0; r < kPatchwiseRows; ++r) sums[r] = constants;
  }
  // Adds the products of every `step`th number from `first` on along the inner dimension, and of the three behind it.
  __device__ void add(const C* left, const C* right, int stride, int first, int end, int step) {
#pragma unroll 1
    for (int inner = first; inner < end; inner += step) {
      Four<C> columns[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) columns[k] = load_four(right + (inner + k) * stride);
#pragma unroll
      for (int r = 0; r < kPatchwiseRows; ++r) {
        const Four<C> row = load_four(left + from[r] + inner);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
#pragma unroll
          for (int i = 0; i < 4; ++i) sums[r].of[i] += row.of[k] * columns[k].of[i];
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

  // The sums of the hidden layer, over all panels. Parts of the block have parts of every panel's depth.
  class Hidden {
   public:
    __device__ Hidden(const PatchwiseAttentionPlan& plan, int pixels) {
      const int quads = plan.hidden / 4, thread = int(threadIdx.x);
      groups_ = (plan.pixels + kPatchwiseRows - 1) / kPatchwiseRows;
      column_ = thread % quads * 4, group_ = thread / quads % groups_, part_ = thread / (quads * groups_);
      tile_.choose_rows(group_, groups_, pixels, plan.left_stride);
      tile_.begin({});
    }
    __device__ void add(const PatchwiseAttentionPlan& plan, const Number* left, const Number* right, int depth) {
      if (part_ < plan.parts) tile_.add(left, right + column_, plan.right_stride, 4 * part_, depth, 4 * plan.parts);
    }
    // Rows of plan.hidden sums for each pixel, for one part after the other.
    __device__ void store(const PatchwiseAttentionPlan& plan, int pixels, Number* partial) const {
      if (part_ >= plan.parts) return;
#pragma unroll
      for (int r = 0; r < kPatchwiseRows; ++r) {
        const int row = group_ + r * groups_;
        if (row < pixels) store_four(tile_.sums[r], partial + (part_ * plan.pixels + row) * plan.hidden + column_);
      }
    }

   private:
    int groups_, column_, group_, part_;
    SumTile<Number> tile_;
  };

  // The weights of a round, rows of plan.columns numbers for each pixel.
  static __device__ void make_weights(const PatchwiseAttentionPlan& plan, int pixels, int columns, const Number* hidden,
                                      const Number* matrix, const Number* constants, Number* weights) {
    const int groups = (pixels + kPatchwiseRows - 1) / kPatchwiseRows, quads = columns / 4;
    for (int index = int(threadIdx.x); index < groups * quads; index += int(blockDim.x)) {
      const int column = index % quads * 4, group = index / quads;
      SumTile<Number> tile;
      tile.choose_rows(group, groups, pixels, plan.hidden_stride);
      tile.begin(load_four(constants + column));
      tile.add(hidden, matrix + column, plan.matrix_stride, 0, plan.hidden, 4);
#pragma unroll
      for (int r = 0; r < kPatchwiseRows; ++r) {
        const int row = group + r * groups;
        if (row < pixels) store_four(tile.sums[r], weights + row * plan.weights_stride + column);
      }
    }
  }
};

}  // namespace sa_layers::cuda
