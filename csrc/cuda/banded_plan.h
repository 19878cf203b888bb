// How maps are cut for the banded kernels, and how a block of them divides its shared memory. Plain C++.
//
// A warp has two rows of eight output pixels. The taps of one row of their footprints fall on a run of sixteen columns,
// so that the sums of these taps, for one weight, are a matrix product: sixteen pixels by sixteen columns, a band of
// weights with zeros beside it, times sixteen columns by the eight channels that share the weight.
#pragma once

#include "cuda/device_limits.h"
#include "cuda/matrix_tiles.h"

namespace sa_layers::cuda {

constexpr int kTileRows = 2, kTileColumns = 8;  // output pixels of a warp
constexpr int kBandColumns = 16;                // that their footprints reach
constexpr int kSharing = 8;                     // channels that share a weight

// What decides about shared memory, in bytes: of a pixel, of what is there once, of a tile and its warps.
struct BandedSizes {
  int key, value, once, tile;
  int most_tiles;  // of a block
};

struct BandedPlan {
  int row_tiles, column_tiles;       // of a block, one or more warps each; 0: nothing fits
  int blocks_down, blocks_across;    // of an image
  int groups;                        // blocks with the same pixels, and some of the weights each
  int region_rows, region_columns;   // of the map, that a block reads at most
  int row_pixels;                    // from row to row of these
  int keys, values, once, tiles_at;  // offsets in shared memory; what places lines, see Line, lies before
  int64_t shared_bytes;

  SA_LAYERS_HOST_DEVICE int tiles() const { return row_tiles * column_tiles; }
  SA_LAYERS_HOST_DEVICE int rows() const { return row_tiles * kTileRows; }
  SA_LAYERS_HOST_DEVICE int columns() const { return column_tiles * kTileColumns; }
  SA_LAYERS_HOST_DEVICE int columns_reached() const { return columns() + kBandColumns - kTileColumns; }
};

// Of a row or a column that footprints reach: the pixel in the block's region, and of what depends on a position alone
// the part that this line adds.
struct Line {
  float first, second;
  float inside;  // 0 beyond the border, or 1
  int pixel;
};

inline bool falls_on_bands(const Footprint& footprint) {
  return footprint.rows.stride == 1 && footprint.columns.stride == 1 && footprint.rows.dilation == 1 &&
         footprint.columns.dilation == 1 && footprint.columns.kernel <= kBandColumns - kTileColumns + 1 &&
         footprint.rows.kernel <= kBandColumns;
}

namespace planning {

// A block of so many tiles, whose region and bands are laid out; its shared_bytes may be too many.
inline BandedPlan lay_out_bands(const Footprint& footprint, int groups, const BandedSizes& sizes, int row_tiles,
                                int column_tiles) {
  BandedPlan plan = {};
  plan.row_tiles = row_tiles, plan.column_tiles = column_tiles, plan.groups = groups;
  const auto blocks = [](int64_t size, int step) { return int((size + step - 1) / step); };
  const auto smaller = [](int64_t a, int64_t b) { return int(a < b ? a : b); };
  plan.blocks_down = blocks(footprint.rows.size, plan.rows());
  plan.blocks_across = blocks(footprint.columns.size, plan.columns());
  const int rows_reached = plan.rows() + int(footprint.rows.kernel) - 1;
  const bool zeros = footprint.mode == Padding::kZeros;  // a row and a column of them
  plan.region_rows = smaller(rows_reached, footprint.rows.size);
  plan.region_columns = smaller(plan.columns() + footprint.columns.kernel - 1, footprint.columns.size);
  plan.row_pixels = plan.region_columns + zeros;
  const int64_t pixels = int64_t(plan.region_rows + zeros) * plan.row_pixels;
  int64_t used = int64_t(sizeof(Line)) * (rows_reached + plan.columns_reached());
  plan.once = int(used), used += sizes.once;
  plan.tiles_at = int(used), used += int64_t(sizes.tile) * plan.tiles();
  plan.keys = int(used), used += pixels * sizes.key;
  plan.values = int(used), used += pixels * sizes.value;
  plan.shared_bytes = used;
  return plan;
}

}  // namespace planning

// Chooses the tiles of a block: those that take the least time, by what a tile's rounds and a region's pixels cost.
// `registers` are those that a thread's share of a tile has, of all its warps.
inline BandedPlan plan_bands(const Footprint& footprint, int64_t images, int groups, const BandedSizes& sizes,
                             int registers, const DeviceLimits& device) {
  BandedPlan best = {};
  double least = 0;
  for (int row_tiles = 1; row_tiles <= sizes.most_tiles; ++row_tiles) {
    for (int column_tiles = 1; row_tiles * column_tiles <= sizes.most_tiles; ++column_tiles) {
      const BandedPlan plan = planning::lay_out_bands(footprint, groups, sizes, row_tiles, column_tiles);
      if (plan.shared_bytes > device.shared_bytes_of_block) break;
      constexpr int64_t kReserved = 1024, kRegisters = 65'536;  // of a block by the system; of a multiprocessor
      int64_t resident = device.shared_bytes / (plan.shared_bytes + kReserved);
      const int64_t fit = kRegisters / (int64_t(registers) * 32 * plan.tiles());
      if (fit < resident) resident = fit;
      if (resident < 1) resident = 1;
      const int64_t blocks = images * plan.blocks_down * plan.blocks_across * groups;
      const int64_t at_once = resident * device.multiprocessors;
      const int64_t waves = (blocks + at_once - 1) / at_once;
      const int64_t busy = blocks < at_once ? (blocks + device.multiprocessors - 1) / device.multiprocessors : resident;
      // A tile alone takes as long as kAlone more of them beside it would take longer.
      constexpr double kAlone = 10, kPixel = 0.02;
      const double tiles = double(busy) * plan.tiles();
      const double time = waves * (kAlone + tiles + kPixel * busy * plan.region_rows * plan.region_columns);
      if (best.row_tiles == 0 || time < least) best = plan, least = time;
    }
  }
  return best;
}

}  // namespace sa_layers::cuda
