// Threads per block of some kernels. A file of its own because the host emulation of the tests replaces it.
#pragma once

namespace sa_layers::cuda {

constexpr int kAttentionThreads = 256;
constexpr int kMostBandedWarps = 16;  // in a block of a banded kernel

// Warps per block of normed_projection, and its blocks per multiprocessor by the number of eight-column output tiles.
constexpr int kProjectionWarps = 8;
constexpr int projection_blocks(int column_tiles) { return column_tiles > 6 ? 1 : 2; }

}  // namespace sa_layers::cuda
