// The threads of a block of pairwise attention. A file of its own, which the host emulation of the tests replaces.
#pragma once

namespace sa_layers::cuda {

constexpr int kAttentionThreads = 256;
constexpr int kMostBandedWarps = 16;  // of a banded kernel
}  // namespace sa_layers::cuda
