// A linear layer behind a frozen norm and a ReLU, in half precision on tensor cores: one pass at memory bandwidth.
//
// A warp processes tiles of 32 pixels, 32 channels at a time. A thread holds eight contiguous channels of each of four
// pixels: one 16-byte copy brings words of the left fragments of two steps. The matrix' rows are permuted to match.

#include <cstdint>
#include <type_traits>

#include "cuda/common/block_sizes.h"
#include "cuda/common/element.cuh"
#include "cuda/common/half2.cuh"
#include "cuda/common/launch.cuh"
#include "cuda/common/mma.cuh"
#include "cuda/common/pack.cuh"
#include "cuda/common/shared_memory.cuh"
#include "cuda/linear/launch.h"
#include "footprint.h"

namespace sa_layers::cuda {

constexpr int kNormedPixels = 32, kNormedChannels = 32;  // per tile of a warp

template <typename T>
struct NormedOperands {
  int64_t pixels;
  int channels, tiles;
  const T *features, *weight, *bias;
  const float *scale, *shift;
  T* result;

  // Tiles at and beyond the end are moved back to be whole.
  __device__ int64_t first_pixel(int tile) const {
    const int64_t first = int64_t(tile) * kNormedPixels, last = pixels - kNormedPixels;
    return first < last ? first : last;
  }
};

constexpr int kStages = 4;                               // the stage in use, and three in flight
using Stage = Pack<uint32_t, 4>[kNormedPixels / 8][32];  // a thread reads only what it copied itself

// Shared memory of a block: the matrix, a buffer of each warp for the results of 16 pixels, each warp's stages, and the
// coefficients. Row strides are an odd multiple of 16 bytes, so that eight rows start in different banks.
template <typename T, int kColumnTiles>
struct ProjectionMemory {
  static constexpr int kRow = kColumnTiles | 1, kRoom = 16 * kRow;
  Pack<T, 8>*matrix, *rooms;
  Stage* stages;
  float *scale, *shift, *bias;

  __device__ ProjectionMemory(float* memory, int channels, int warps)
      : matrix(reinterpret_cast<Pack<T, 8>*>(memory)),
        rooms(matrix + kRow * channels),
        stages(reinterpret_cast<Stage*>(rooms + kRoom * warps)),
        scale(reinterpret_cast<float*>(stages + kStages * warps)),
        shift(scale + channels),
        bias(shift + channels) {}

  static int64_t bytes(int64_t channels, int warps) {
    return 16 * (kRow * channels + kRoom * warps) + int64_t(sizeof(Stage)) * kStages * warps +
           4 * (2 * channels + 8 * kColumnTiles);
  }

  // Channel 8 t + 4 s + 2 w + i of a group is row 2 t + i of word w of step s.
  __device__ void fill(const NormedOperands<T>& operands) const {
    const int thread = int(threadIdx.x), threads = int(blockDim.x), channels = operands.channels;
    for (int i = thread; i < channels * kColumnTiles; i += threads) {
      const int channel = i / kColumnTiles, in_group = channel % kNormedChannels;
      const int row = in_group / 2 % 4 * 8 + in_group / 8 * 2 + in_group % 2;
      matrix[(channel - in_group + row) * kRow + i % kColumnTiles] = load_pack<8>(operands.weight + 8 * int64_t(i));
    }
    for (int i = thread; i < channels; i += threads) scale[i] = operands.scale[i], shift[i] = operands.shift[i];
    for (int i = thread; i < 8 * kColumnTiles; i += threads) bias[i] = widen(operands.bias[i]);
  }
};

template <typename T>
__device__ Pack<float, 2> widen_pair(uint32_t word) {
  const auto pair = *reinterpret_cast<const Pack<T, 2>*>(&word);
  return {{widen(pair[0]), widen(pair[1])}};
}

// The asynchronous copies of a warp: group after group of channels, tile after tile.
template <typename T>
class CopiesAhead {
 public:
  __device__ CopiesAhead(const NormedOperands<T>& operands, Stage* stages, int tile, int stride)
      : operands_(operands), stages_(stages), tile_(tile), stride_(stride), lane_(int(threadIdx.x) % 32) {
    find();
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) copy();
  }

  // Waits for the thread's channels of the next group, and starts copying one more.
  __device__ void next(Pack<uint32_t, 4> (&channels)[4]) {
    wait_for_copies<kStages - 2>();
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
    for (int i = 0; i < 4; ++i) copy_async(&stages_[at_][i][lane_], first_ + 8 * i * operands_.channels);
    commit_copies();
    at_ = (at_ + 1) % kStages;
    first_ += kNormedChannels, left_ -= kNormedChannels;
    if (left_ == 0) tile_ += stride_, find();
  }

  const NormedOperands<T>& operands_;
  Stage* stages_;
  const T* first_;
  int tile_, stride_, lane_, left_, at_ = 0;
};

// The left fragments of a step, for two tiles of 16 pixels; coefficients point to those of the thread's first channel.
template <typename T>
__device__ void activate(const Pack<uint32_t, 4> (&channels)[4], int step, const float* scale, const float* shift,
                         uint32_t (&left)[2][4]) {
  const Pack<float, 4> scales = load_pack<4>(scale + 4 * step), shifts = load_pack<4>(shift + 4 * step);
#pragma unroll
  for (int word = 0; word < 2; ++word) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Pack<float, 2> pair = widen_pair<T>(channels[i][2 * step + word]);
      left[i / 2][2 * word + i % 2] = pack_relu<T>(scales[2 * word] * pair[0] + shifts[2 * word],
                                                   scales[2 * word + 1] * pair[1] + shifts[2 * word + 1]);
    }
  }
}

// The products of a step; `matrix` points to the lane's row. The upper half of the lanes load the odd column tiles.
template <typename T, int kColumnTiles>
__device__ void multiply(const uint32_t (&left)[2][4], const Pack<T, 8>* matrix, float (&sums)[2][kColumnTiles][4]) {
#pragma unroll
  for (int column_tile = 0; column_tile < kColumnTiles; column_tile += 2) {
    uint32_t right[4];
    load_transposed_matrices(matrix + column_tile + (column_tile + 1 < kColumnTiles ? threadIdx.x % 32 / 16 : 0),
                             right);
#pragma unroll
    for (int i = 0; i < 2 && column_tile + i < kColumnTiles; ++i) {
      multiply_accumulate<T>(sums[0][column_tile + i], left[0], right + 2 * i);
      multiply_accumulate<T>(sums[1][column_tile + i], left[1], right + 2 * i);
    }
  }
}

// Stores the results of 16 pixels through the warp's buffer, so that 32 bytes of a pixel are written at once; skips the
// first `known` pixels.
template <typename T, int kColumnTiles>
__device__ void write_results(const float (&sums)[kColumnTiles][4], int known, Pack<T, 8>* room, T* to, int lane) {
  constexpr int kRow = ProjectionMemory<T, kColumnTiles>::kRow;
  uint32_t* const words = reinterpret_cast<uint32_t*>(room) + lane / 4 * 4 * kRow + lane % 4;
#pragma unroll
  for (int column_tile = 0; column_tile < kColumnTiles; ++column_tile) {
    words[4 * column_tile] = pack<T>(sums[column_tile][0], sums[column_tile][1]);
    words[4 * column_tile + 8 * 4 * kRow] = pack<T>(sums[column_tile][2], sums[column_tile][3]);
  }
  __syncwarp();
  const int row = lane / 2;
  if (row >= known) {
#pragma unroll
    for (int i = 0; i < kColumnTiles; i += 2) {
      const int piece = i + lane % 2;
      if (piece < kColumnTiles) store_pack(room[row * kRow + piece], to + 8 * (row * kColumnTiles + piece));
    }
  }
  __syncwarp();
}

template <typename T, int kColumnTiles>
__global__ void __launch_bounds__(32 * kProjectionWarps, projection_blocks(kColumnTiles))
    normed_projection_tiles(NormedOperands<T> operands) {
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32;
  const int stride = int(gridDim.x) * warps, first_tile = int(blockIdx.x) * warps + warp;
  const ProjectionMemory<T, kColumnTiles> memory(shared_memory(), operands.channels, warps);
  CopiesAhead<T> copies(operands, memory.stages + kStages * warp, first_tile, stride);
  memory.fill(operands);
  __syncthreads();

  for (int tile = first_tile; tile < operands.tiles; tile += stride) {
    float sums[2][kColumnTiles][4];
#pragma unroll
    for (int column_tile = 0; column_tile < kColumnTiles; ++column_tile) {
      const Pack<float, 2> bias = load_pack<2>(memory.bias + 8 * column_tile + lane % 4 * 2);
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[0][column_tile][i] = sums[1][column_tile][i] = bias[i % 2];
    }
#pragma unroll 1
    for (int channel = 0; channel < operands.channels; channel += kNormedChannels) {
      Pack<uint32_t, 4> channels[4];
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
                    operands.result + (first + 16 * piece) * (8 * kColumnTiles), lane);
    }
  }
  wait_for_copies<0>();
}

namespace {

// As many blocks as are resident at once, since each copies the matrix.
template <typename T, int kColumnTiles>
cudaError_t launch_width(const NormedProjection& problem, cudaStream_t stream, bool& launched) {
  const auto kernel = &normed_projection_tiles<T, kColumnTiles>;
  DeviceLimits device = {};
  if (const cudaError_t error = describe_device(device)) return error;
  const int64_t bytes = ProjectionMemory<T, kColumnTiles>::bytes(problem.channels, kProjectionWarps);
  launched = has_tensor_cores_for<__nv_bfloat16>(kernel) && bytes <= device.shared_bytes_of_block;
  const int64_t tiles = ceil_div<int64_t>(problem.pixels, kNormedPixels),
                wanted = ceil_div<int64_t>(tiles, kProjectionWarps);
  const int64_t most = int64_t(projection_blocks(kColumnTiles)) * device.multiprocessors, blocks = min(wanted, most);
  if (!launched) return cudaSuccess;
  const NormedOperands<T> operands = {problem.pixels,
                                      int(problem.channels),
                                      int(tiles),
                                      static_cast<const T*>(problem.features),
                                      static_cast<const T*>(problem.weight),
                                      static_cast<const T*>(problem.bias),
                                      static_cast<const float*>(problem.scale),
                                      static_cast<const float*>(problem.shift),
                                      static_cast<T*>(problem.result)};
  return launch(kernel, blocks, 32 * kProjectionWarps, bytes, stream, operands);
}

}  // namespace

cudaError_t launch_normed_projection(const NormedProjection& problem, Element element, cudaStream_t stream,
                                     bool& launched) {
  constexpr int kMostChannels = 256;  // beyond, the layer is bound by products, and cuBLAS is faster
  launched = false;
  if (problem.pixels < kNormedPixels || problem.channels == 0 || problem.channels > kMostChannels ||
      problem.channels % kNormedChannels ||
      !fits_packs<__half>(problem.channels, problem.features, problem.weight, problem.result)) {
    return cudaSuccess;
  }
  return dispatch_half(element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    switch (problem.out_channels) {
      case 24:
        return launch_width<T, 3>(problem, stream, launched);
      case 48:
        return launch_width<T, 6>(problem, stream, launched);
      case 96:
        return launch_width<T, 12>(problem, stream, launched);
      default:
        return cudaSuccess;
    }
  });
}

}  // namespace sa_layers::cuda
