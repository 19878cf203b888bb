// The two products of patchwise attention on tensor cores, whose warps compute pieces of kWarpRows by kWarpColumns.
#pragma once

#include "cuda/patchwise_matrices.cuh"
#include "cuda/tensor_tiles.cuh"

namespace sa_layers::cuda {

// 16 bytes of factors, which one instruction stores.
template <typename F>
struct alignas(16) Piece {
  F of[16 / sizeof(F)];
};

// Copies the columns of a matrix, rounded to factors, as rows of `inner` numbers: neighbouring threads read
// neighbouring columns, and write pieces to different banks.
template <typename F, typename Matrix>
__device__ void copy_columns(const Matrix& matrix, const float* from, int inner, int outer, F* to, int stride) {
  constexpr int kPiece = 16 / sizeof(F);
  const int size = outer * (inner / kPiece);
#pragma unroll 2
  for (int index = int(threadIdx.x); index < size; index += int(blockDim.x)) {
    const int first = index / outer * kPiece, row = index % outer, column = matrix.column(row);
    Piece<F> piece;
#pragma unroll
    for (int k = 0; k < kPiece; ++k) {
      const int64_t begin = matrix.row(first + k);
      float number = begin < 0 || column < 0 ? 0.0f : from[begin + column];
      if (kLargestFactor<F> > 0 && number < -kLargestFactor<F>) number = -kLargestFactor<F>;
      round_to_factor(number, piece.of[k]);
    }
    *reinterpret_cast<Piece<F>*>(to + row * stride + first) = piece;
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

  // The sums of the hidden layer, over all panels. Parts of the block have parts of every panel's depth.
  class Hidden {
   public:
    __device__ Hidden(const PatchwiseAttentionPlan& plan, int pixels) {
      const int warp = int(threadIdx.x) / 32, column_pieces = (plan.hidden + kWarpColumns - 1) / kWarpColumns;
      const int row_pieces = (plan.pixels + kWarpRows - 1) / kWarpRows;
      column_ = warp % column_pieces * kWarpColumns, row_ = warp / column_pieces % row_pieces * kWarpRows;
      part_ = warp / (column_pieces * row_pieces), last_row_ = pixels - 1;
    }
    __device__ void add(const PatchwiseAttentionPlan& plan, const F* left, const F* right, int depth) {
      if (part_ >= plan.parts) return;
      __syncwarp();  // from here on all of a warp do the same at once
      const int columns = plan.hidden - column_;
      if (columns <= 8) {
        add_eights<1>(plan, left, right, depth);
      } else if (columns <= 16) {
        add_eights<2>(plan, left, right, depth);
      } else {
        add_eights<kWarpColumns / 8>(plan, left, right, depth);
      }
    }
    // Rows of plan.hidden sums for each pixel, for one part after the other.
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
          *reinterpret_cast<Two<float>*>(partial + (part_ * plan.pixels + row) * plan.hidden +
                                         column) = {{two[0], two[1]}};
        }
      }
    }

   private:
    static constexpr int kPiece = 16 / sizeof(F), kRows = kWarpRows / 16;

    // Rows and columns beyond the last are read as the last.
    template <int kEights>
    __device__ void add_eights(const PatchwiseAttentionPlan& plan, const F* left, const F* right, int depth) {
      constexpr int kLoads = (kEights + 1) / 2;
      // What this thread gives load_matrices, as in multiply_tiles.
      const int lane = int(threadIdx.x) % 32;
      int lefts_at[kRows], rights_at[kLoads];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        lefts_at[r] = least(row_ + 16 * r + lane % 16, last_row_) * plan.left_stride + lane / 16 * kPiece;
      }
#pragma unroll
      for (int c = 0; c < kLoads; ++c) {
        const int column = least(column_ + 16 * c + lane / 16 * 8 + lane % 8, plan.hidden - 1);
        rights_at[c] = column * plan.right_stride + lane / 8 % 2 * kPiece;
      }
#pragma unroll kStepsAtOnce
      for (int inner = 2 * kPiece * part_; inner < depth; inner += 2 * kPiece * plan.parts) {
        uint32_t lefts[kRows][4], rights[kEights][1][2];
#pragma unroll
        for (int r = 0; r < kRows; ++r) load_matrices(left + lefts_at[r] + inner, lefts[r]);
        if constexpr (kEights == 1) load_matrices(right + rights_at[0] + inner, rights[0][0]);
#pragma unroll
        for (int c = 0; c + 1 < kEights; c += 2) {
          uint32_t words[4];
          load_matrices(right + rights_at[c / 2] + inner, words);
          rights[c][0][0] = words[0], rights[c][0][1] = words[1];
          rights[c + 1][0][0] = words[2], rights[c + 1][0][1] = words[3];
        }
#pragma unroll
        for (int c = 0; c < kEights; ++c) multiply_accumulate<F>(sums_[c], lefts, rights[c]);
      }
    }

    int column_, row_, part_, last_row_;
    float sums_[kWarpColumns / 8][kRows][1][4] = {};  // by eights of columns
  };

  // The weights of a round, rows of plan.weights_stride numbers for each pixel.
  static __device__ void make_weights(const PatchwiseAttentionPlan& plan, int pixels, int columns, const F* hidden,
                                      const F* matrix, const float* constants, float* weights) {
    multiply_on_tensor_cores(hidden, plan.hidden_stride, pixels, plan.hidden, matrix, constants, columns, false, 0,
                             columns, LayerOutput<F>{nullptr, weights, plan.weights_stride});
  }
};

}  // namespace sa_layers::cuda
