// How matrices lie in shared memory, for hosts that plan it and kernels that use it. Plain C++.
#pragma once

#include <cstdint>

#include "footprint.h"

namespace sa_layers::cuda {

// Steps, in elements, of a weight (output, input).
struct WeightSteps {
  int64_t output, input;
};

// A thread computes four outputs of so many rows at a time: as many as registers have room for, beside the sums.
SA_LAYERS_HOST_DEVICE constexpr int tile_rows(int element_bytes) { return element_bytes == 4 ? 6 : 4; }

SA_LAYERS_HOST_DEVICE inline int quads_of(int64_t channels) { return int((channels + 3) / 4); }
inline int round_up_to_quads(int64_t width) { return 4 * quads_of(width); }

// The step between rows of so many numbers that are read four at a time: an odd multiple of four, so that eight rows
// lie in different banks.
inline int row_stride(int width) { return width % 8 == 0 ? width + 4 : width; }

}  // namespace sa_layers::cuda
