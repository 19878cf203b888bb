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
inline int round_up(int64_t number, int step) { return int((number + step - 1) / step * step); }

// The step between rows of whole pieces, of so many numbers that are read at once: an odd number of pieces, so that
// eight rows lie in different banks.
inline int row_stride(int width, int piece = 4) { return width / piece % 2 == 0 ? width + piece : width; }

// The numbers that matrix products multiply and add up.
struct MatrixNumbers {
  int factor_bytes, sum_bytes;
  bool tensor_cores;

  int piece() const { return tensor_cores ? 16 / factor_bytes : 4; }  // factors that are read at once
};

// On tensor cores, a warp computes so many rows by so many columns at a time, or a half or a quarter of the columns.
constexpr int kWarpRows = 32, kWarpColumns = 32;

// The step between rows of sums that tensor cores leave in pairs: a warp's half writes four rows of eight numbers to
// different banks.
inline int sums_stride(int width) { return width <= 8 ? width : round_up(width - 8, 16) + 8; }

}  // namespace sa_layers::cuda
