// The threads of a block of pairwise attention. A file of its own, which the host emulation of the tests replaces.
#pragma once

namespace sa_layers::cuda {

constexpr int kAttentionThreads = 256;

}  // namespace sa_layers::cuda
