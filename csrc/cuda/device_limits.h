// What plans of blocks are made for. Plain C++.
#pragma once

#include <cstdint>

namespace sa_layers::cuda {

// The multiprocessors of a device, and the shared memory of one of them and of a block.
struct DeviceLimits {
  int64_t multiprocessors, shared_bytes, shared_bytes_of_block;
};

}  // namespace sa_layers::cuda
