// Replaces csrc/cuda/common/block_sizes.h: the emulation is slow with many threads.
#pragma once

namespace sa_layers::cuda {

constexpr int kAttentionThreads = 64;
constexpr int kMostBandedWarps = 4;  // in a block of a banded kernel

// Warps per block of normed_projection, and its blocks per multiprocessor by the number of eight-column output tiles.
constexpr int kProjectionWarps = 2;
constexpr int projection_blocks(int column_tiles) { return column_tiles > 6 ? 1 : 2; }

}  // namespace sa_layers::cuda
