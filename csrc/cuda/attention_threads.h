// The threads of a block, for some kernels. A file of its own, which the host emulation of the tests replaces.
#pragma once

namespace sa_layers::cuda {

constexpr int kAttentionThreads = 256;
constexpr int kMostBandedWarps = 16;  // of a banded kernel

// The warps of a block of normed_projection, and blocks that a multiprocessor has room for, by its eights of results.
constexpr int kProjectionWarps = 8;
constexpr int projection_blocks(int eights) { return eights > 6 ? 1 : 2; }

}  // namespace sa_layers::cuda
