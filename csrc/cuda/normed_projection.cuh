// A linear layer behind a frozen norm and a ReLU, in half precision on tensor cores: one pass, as fast as memory.
//
// A warp takes 32 pixels at a time, 32 channels in turn. Of these a thread has eight side by side, of four pixels: what
// one copy brings are words of the left factors of two steps. The matrix' rows are permuted in the same way.
#pragma once

#include "cuda/attention_threads.h"
#include "cuda/copy_ahead.cuh"
#include "cuda/packed_pair.cuh"
#include "cuda/shared_memory.cuh"
#include "cuda/strip.cuh"
#include "cuda/tensor_core.cuh"

namespace sa_layers::cuda {

constexpr int kNormedPixels = 32, kNormedChannels = 32;  // that a warp takes at a time

template <typename T>
struct NormedOperands {
  int64_t pixels;
  int channels, tiles;
  const T *features, *weight, *bias;
  const float *scale, *shift;
  T* result;

  // The last tile begins where it is whole, as do those beyond.
  __device__ int64_t first_pixel(int tile) const {
    const int64_t first = int64_t(tile) * kNormedPixels, last = pixels - kNormedPixels;
    return first < last ? first : last;
  }
};

// Eight channels of a pixel, 16 bytes.
struct alignas(16) EightChannels {
  uint32_t of[4];
};

constexpr int kStages = 4;                           // what a warp computes, and three that are on their way
using Stage = EightChannels[kNormedPixels / 8][32];  // a thread reads only what it has copied itself

// Shared memory of a block: the matrix, room of each warp for results of 16 pixels, each warp's stages, coefficients.
// Rows are an odd number of 16 bytes apart, so that eight of them begin in different banks.
template <typename T, int kEights>
struct ProjectionMemory {
  static constexpr int kRow = kEights | 1, kRoom = 16 * kRow;
  using Piece = Strip<T, 8>;
  Piece *matrix, *rooms;
  Stage* stages;
  float *scale, *shift, *bias;

  __device__ ProjectionMemory(float* memory, int channels, int warps)
      : matrix(reinterpret_cast<Piece*>(memory)),
        rooms(matrix + kRow * channels),
        stages(reinterpret_cast<Stage*>(rooms + kRoom * warps)),
        scale(reinterpret_cast<float*>(stages + kStages * warps)),
        shift(scale + channels),
        bias(shift + channels) {}

  static int64_t bytes(int64_t channels, int warps) {
    return 16 * (kRow * channels + kRoom * warps) + int64_t(sizeof(Stage)) * kStages * warps +
           4 * (2 * channels + 8 * kEights);
  }

  // Channel 8 t + 4 s + 2 w + i of a group is row 2 t + i of word w of step s.
  __device__ void fill(const NormedOperands<T>& operands) const {
    const int thread = int(threadIdx.x), threads = int(blockDim.x), channels = operands.channels;
    for (int i = thread; i < channels * kEights; i += threads) {
      const int channel = i / kEights, in_group = channel % kNormedChannels;
      const int row = in_group / 2 % 4 * 8 + in_group / 8 * 2 + in_group % 2;
      matrix[(channel - in_group + row) * kRow + i % kEights] = load_strip<8>(operands.weight + 8 * int64_t(i));
    }
    for (int i = thread; i < channels; i += threads) scale[i] = operands.scale[i], shift[i] = operands.shift[i];
    for (int i = thread; i < 8 * kEights; i += threads) bias[i] = widen(operands.bias[i]);
  }
};

template <typename T>
__device__ Strip<float, 2> widen_pair(uint32_t word) {
  const auto pair = *reinterpret_cast<const Strip<T, 2>*>(&word);
  return {{widen(pair.elements[0]), widen(pair.elements[1])}};
}

// The copies of a warp: of one group of channels after the other, of one tile after the other.
template <typename T>
class CopiesAhead {
 public:
  __device__ CopiesAhead(const NormedOperands<T>& operands, Stage* stages, int tile, int stride)
      : operands_(operands), stages_(stages), tile_(tile), stride_(stride), lane_(int(threadIdx.x) % 32) {
    find();
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) copy();
  }

  // The thread's channels of the next group; those after the last one on their way are sent for.
  __device__ void next(EightChannels (&channels)[4]) {
    await_copies<kStages - 2>();
    const Stage& stage = stages_[(at_ + 1) % kStages];
#pragma unroll
    for (int i = 0; i < 4; ++i) channels[i] = stage[i][lane_];
    copy();
  }

 private:
  __device__ void find() {
    first_ = operands_.features + (operands_.first_pixel(tile_) + lane_ / 4) * operands_.channels + lane_ % 4 * 8;
    left_ = operands_.channels;
  }

  __device__ void copy() {
#pragma unroll
    for (int i = 0; i < 4; ++i) copy_ahead(&stages_[at_][i][lane_], first_ + 8 * i * operands_.channels);
    end_copies();
    at_ = (at_ + 1) % kStages;
    first_ += kNormedChannels, left_ -= kNormedChannels;
    if (left_ == 0) tile_ += stride_, find();
  }

  const NormedOperands<T>& operands_;
  Stage* stages_;
  const T* first_;
  int tile_, stride_, lane_, left_, at_ = 0;
};

// The left factors of a step, for two pieces of 16 pixels; coefficients are those of the thread's first channel.
template <typename T>
__device__ void activate(const EightChannels (&channels)[4], int step, const float* scale, const float* shift,
                         uint32_t (&left)[2][4]) {
  const Strip<float, 4> scales = load_strip<4>(scale + 4 * step), shifts = load_strip<4>(shift + 4 * step);
#pragma unroll
  for (int word = 0; word < 2; ++word) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Strip<float, 2> pair = widen_pair<T>(channels[i].of[2 * step + word]);
      left[i / 2][2 * word + i % 2] =
          pack_relu<T>(scales.elements[2 * word] * pair.elements[0] + shifts.elements[2 * word],
                       scales.elements[2 * word + 1] * pair.elements[1] + shifts.elements[2 * word + 1]);
    }
  }
}

// Products of a step; `matrix` is where the lane's row of it begins. Half of the lanes are those of odd eights.
template <typename T, int kEights>
__device__ void multiply(const uint32_t (&left)[2][4], const Strip<T, 8>* matrix, float (&sums)[2][kEights][4]) {
#pragma unroll
  for (int eight = 0; eight < kEights; eight += 2) {
    uint32_t right[4];
    load_transposed_matrices(matrix + eight + (eight + 1 < kEights ? threadIdx.x % 32 / 16 : 0), right);
#pragma unroll
    for (int i = 0; i < 2 && eight + i < kEights; ++i) {
      multiply_accumulate<T>(sums[0][eight + i], left[0], right + 2 * i);
      multiply_accumulate<T>(sums[1][eight + i], left[1], right + 2 * i);
    }
  }
}

// The results of 16 pixels go through the warp's room, so that 32 bytes of a pixel are written at once; the first
// `known` pixels are not written.
template <typename T, int kEights>
__device__ void write_results(const float (&sums)[kEights][4], int known, Strip<T, 8>* room, T* to, int lane) {
  constexpr int kRow = ProjectionMemory<T, kEights>::kRow;
  uint32_t* const words = reinterpret_cast<uint32_t*>(room) + lane / 4 * 4 * kRow + lane % 4;
#pragma unroll
  for (int eight = 0; eight < kEights; ++eight) {
    words[4 * eight] = pack<T>(sums[eight][0], sums[eight][1]);
    words[4 * eight + 8 * 4 * kRow] = pack<T>(sums[eight][2], sums[eight][3]);
  }
  __syncwarp();
  const int row = lane / 2;
  if (row >= known) {
#pragma unroll
    for (int i = 0; i < kEights; i += 2) {
      const int piece = i + lane % 2;
      if (piece < kEights) store_strip(room[row * kRow + piece], to + 8 * (row * kEights + piece));
    }
  }
  __syncwarp();
}

template <typename T, int kEights>
__global__ void __launch_bounds__(32 * kProjectionWarps, projection_blocks(kEights))
    normed_projection_tiles(NormedOperands<T> operands) {
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32;
  const int stride = int(gridDim.x) * warps, first_tile = int(blockIdx.x) * warps + warp;
  const ProjectionMemory<T, kEights> memory(shared_memory(), operands.channels, warps);
  CopiesAhead<T> copies(operands, memory.stages + kStages * warp, first_tile, stride);
  memory.fill(operands);
  __syncthreads();

  for (int tile = first_tile; tile < operands.tiles; tile += stride) {
    float sums[2][kEights][4];
#pragma unroll
    for (int eight = 0; eight < kEights; ++eight) {
      const Strip<float, 2> bias = load_strip<2>(memory.bias + 8 * eight + lane % 4 * 2);
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[0][eight][i] = sums[1][eight][i] = bias.elements[i % 2];
    }
#pragma unroll 1
    for (int channel = 0; channel < operands.channels; channel += kNormedChannels) {
      EightChannels channels[4];
      copies.next(channels);
      const auto* const matrix = memory.matrix + (channel + lane % 16) * memory.kRow;
      const int own = channel + lane % 4 * 8;
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        uint32_t left[2][4];
        activate<T>(channels, step, memory.scale + own, memory.shift + own, left);
        multiply<T>(left, matrix + 16 * step * memory.kRow, sums);
      }
    }
    const int64_t first = operands.first_pixel(tile);
    const int known = int(int64_t(tile) * kNormedPixels - first);
#pragma unroll
    for (int piece = 0; piece < 2; ++piece) {
      write_results(sums[piece], known - 16 * piece, memory.rooms + warp * memory.kRoom,
                    operands.result + (first + 16 * piece) * (8 * kEights), lane);
    }
  }
  await_copies<0>();
}

}  // namespace sa_layers::cuda
