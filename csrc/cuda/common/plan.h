// What the plans of all kernels are made of: element types, limits of the device, and how matrices are laid out in
// shared memory. Plain C++, for the host's planning and for the kernels.
#pragma once

#include <cstdint>

#include "footprint.h"

namespace sa_layers::cuda {

enum class Element { kFloat32, kFloat64, kFloat16, kBFloat16 };

inline bool is_half(Element element) { return element == Element::kFloat16 || element == Element::kBFloat16; }

// The multiprocessors of a device, and the shared memory of one of them and of a block.
struct DeviceLimits {
  int64_t multiprocessors, shared_bytes, shared_bytes_of_block;
};

constexpr int kDefaultSharedBytes = 48 * 1024;

// Strides, in elements, of a weight (output, input).
struct WeightSteps {
  int64_t output, input;
};

// A weight or a bias of a linear layer, as its module holds it: in the dtype of the maps, or in that of accumulation.
struct LayerParameter {
  const void* numbers;
  bool in_map_dtype;
};

// Rows of which a thread computes four outputs at a time: as many as its registers hold besides the sums.
SA_LAYERS_HOST_DEVICE constexpr int tile_rows(int element_bytes) { return element_bytes == 4 ? 6 : 4; }

SA_LAYERS_HOST_DEVICE inline int packs_of(int64_t channels) { return int((channels + 3) / 4); }
inline int round_up(int64_t number, int step) { return int(ceil_div<int64_t>(number, step) * step); }

// The row stride of rows that are whole vectors of `vector` numbers: an odd number of vectors, so that eight rows start
// in different banks.
inline int row_stride(int width, int vector = 4) { return width / vector % 2 == 0 ? width + vector : width; }

// The operand and accumulator types of matrix products.
struct ProductTypes {
  int factor_bytes, sum_bytes;
  bool tensor_cores;

  int vector() const { return tensor_cores ? 16 / factor_bytes : 4; }  // operands per vectorized load
};

// The tile of a warp on tensor cores; also with a half or a quarter of the columns.
constexpr int kWarpRows = 32, kWarpColumns = 32;

// The row stride of sums that tensor cores store in pairs: half a warp writes four rows of eight numbers to different
// banks.
inline int sums_stride(int width) { return width <= 8 ? width : round_up(width - 8, 16) + 8; }

}  // namespace sa_layers::cuda
