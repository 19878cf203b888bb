// Takes the place of csrc/cuda/attention_threads.h: barriers of the host are slow with many threads.
#pragma once

namespace sa_layers::cuda {

constexpr int kAttentionThreads = 64;
constexpr int kMostBandedWarps = 4;  // that share a tile of patchwise attention at most

// The warps of a block of normed_projection, and blocks that a multiprocessor has room for, by its eights of results.
constexpr int kProjectionWarps = 2;
constexpr int projection_blocks(int eights) { return eights > 6 ? 1 : 2; }

}  // namespace sa_layers::cuda
