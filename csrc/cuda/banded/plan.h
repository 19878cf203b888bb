// How the banded kernels of both attentions cut a map into blocks, and how a block divides its shared memory. Plain
// C++.
//
// A warp computes a tile of two rows of eight output pixels. The taps of one row of their footprints fall on a run of
// sixteen columns, so the sums of these taps, for one weight channel, are a matrix product: sixteen pixels by sixteen
// columns, a band of weights with zeros beside it, times sixteen columns by the eight channels that share the weight.
#pragma once

#include <cstdint>

#include "cuda/common/block_sizes.h"
#include "cuda/common/plan.h"
#include "footprint.h"

namespace sa_layers::cuda {

constexpr int kTileRows = 2, kTileColumns = 8;  // output pixels of a warp's tile
constexpr int kBandColumns = 16;                // that the footprints of a tile's row reach
constexpr int kSharing = 8;                     // channels that share a weight

// Shared memory in bytes: of a pixel's keys and values, of what a block has once, and of a tile with its warps.
struct BandedSizes {
  int key, value, once, tile;
  int most_tiles;  // of a block
};

struct BandedPlan {
  int row_tiles, column_tiles;       // of a block, with one or more warps each; 0 if nothing fits
  int blocks_down, blocks_across;    // of an image
  int groups;                        // blocks that share the pixels and split the weights
  int region_rows, region_columns;   // of the map that a block reads, at most
  int row_pixels;                    // the row stride of these, in pixels
  int keys, values, once, tiles_at;  // offsets in shared memory, after the tables of Lines
  int64_t shared_bytes;

  SA_LAYERS_HOST_DEVICE int tiles() const { return row_tiles * column_tiles; }
  SA_LAYERS_HOST_DEVICE int rows() const { return row_tiles * kTileRows; }
  SA_LAYERS_HOST_DEVICE int columns() const { return column_tiles * kTileColumns; }
  SA_LAYERS_HOST_DEVICE int columns_reached() const { return columns() + kBandColumns - kTileColumns; }
};

// A row or a column that footprints reach: its offset in the block's region, and its part of the two position features.
struct Line {
  float first, second;
  float inside;  // 1, or 0 beyond the border
  int pixel;
};

inline const char* why_not_banded_footprint(const Footprint& footprint) {
  const Axis &rows = footprint.rows, &columns = footprint.columns;
  static_assert(kBandColumns == 16 && kTileColumns == 8);
  if (rows.stride != 1 || columns.stride != 1 || rows.dilation != 1 || columns.dilation != 1) {
    return "stride or dilation is not 1";
  }
  const bool fits = columns.kernel <= kBandColumns - kTileColumns + 1 && rows.kernel <= kBandColumns;
  return fits ? nullptr : "kernel_size is above 16 rows by 9 columns";
}

namespace planning {

// Lays out a block of so many tiles; its shared_bytes may exceed the limit.
inline BandedPlan lay_out_bands(const Footprint& footprint, int groups, const BandedSizes& sizes, int row_tiles,
                                int column_tiles) {
  BandedPlan plan = {};
  plan.row_tiles = row_tiles, plan.column_tiles = column_tiles, plan.groups = groups;
  plan.blocks_down = int(ceil_div<int64_t>(footprint.rows.size, plan.rows()));
  plan.blocks_across = int(ceil_div<int64_t>(footprint.columns.size, plan.columns()));
  const int rows_reached = plan.rows() + int(footprint.rows.kernel) - 1;
  const bool zeros = footprint.mode == Padding::kZeros;  // one row and one column of zeros
  plan.region_rows = int(min<int64_t>(rows_reached, footprint.rows.size));
  plan.region_columns = int(min(plan.columns() + footprint.columns.kernel - 1, footprint.columns.size));
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

// Chooses the tiles of a block by a cost model of a tile's rounds and a region's pixels. `registers` is per thread,
// times the warps of a tile.
inline BandedPlan plan_bands(const Footprint& footprint, int64_t images, int groups, const BandedSizes& sizes,
                             int registers, const DeviceLimits& device) {
  BandedPlan best = {};
  double least = 0;
  for (int row_tiles = 1; row_tiles <= sizes.most_tiles; ++row_tiles) {
    for (int column_tiles = 1; row_tiles * column_tiles <= sizes.most_tiles; ++column_tiles) {
      const BandedPlan plan = planning::lay_out_bands(footprint, groups, sizes, row_tiles, column_tiles);
      if (plan.shared_bytes > device.shared_bytes_of_block) break;
      constexpr int64_t kReserved = 1024, kRegisters = 65'536;  // per block by the system; per multiprocessor
      int64_t resident = device.shared_bytes / (plan.shared_bytes + kReserved);
      const int64_t fit = kRegisters / (int64_t(registers) * 32 * plan.tiles());
      if (fit < resident) resident = fit;
      if (resident < 1) resident = 1;
      const int64_t blocks = images * plan.blocks_down * plan.blocks_across * groups;
      const int64_t at_once = resident * device.multiprocessors;
      const int64_t waves = ceil_div(blocks, at_once);
      const int64_t busy = blocks < at_once ? ceil_div(blocks, device.multiprocessors) : resident;
      // The latency of a single tile, in units of what one more tile in parallel adds.
      constexpr double kAlone = 10, kPixel = 0.02;
      const double tiles = double(busy) * plan.tiles();
      const double time = waves * (kAlone + tiles + kPixel * busy * plan.region_rows * plan.region_columns);
      if (best.row_tiles == 0 || time < least) best = plan, least = time;
    }
  }
  return best;
}

// The largest number of tiles of a block, with `of_tile` warps each, where registers allow `warps`.
constexpr int most_tiles(int warps, int of_tile) {
  return (warps < kMostBandedWarps ? warps : kMostBandedWarps) / of_tile;
}

}  // namespace sa_layers::cuda
