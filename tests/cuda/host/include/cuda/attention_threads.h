// Takes the place of csrc/cuda/attention_threads.h: barriers of the host are slow with many threads.
#pragma once

namespace sa_layers::cuda {

constexpr int kAttentionThreads = 64;
constexpr int kMostBandedWarps = 2;

}  // namespace sa_layers::cuda
