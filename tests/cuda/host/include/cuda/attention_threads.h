// Takes the place of csrc/cuda/attention_threads.h: barriers of the host are slow with many threads.
#pragma once

namespace sa_layers::cuda {

constexpr int kAttentionThreads = 64;
constexpr int kMostBandedWarps = 4;  // that share a tile of patchwise attention at most

}  // namespace sa_layers::cuda
