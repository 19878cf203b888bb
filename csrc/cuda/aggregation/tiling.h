// How weight maps are cut into the tiles of thread blocks. Plain C++, for host and device.
//
// A map is seen as lines of pixels, and a thread computes a group of four pixels of a line. Lines are rows where groups
// can be loaded by one instruction each. Otherwise lines are columns: then neighbouring threads have neighbouring
// pixels of a row, so single-element loads are coalesced whatever the width of the map.
#pragma once

#include <cstdint>

#include "cuda/common/plan.h"
#include "footprint.h"

namespace sa_layers::cuda {

constexpr int kGroup = 4;           // pixels per thread
constexpr int kThreads = 128;       // per block, at most
constexpr int kEnoughBlocks = 256;  // before a block takes several maps: about two per multiprocessor of a large device
constexpr int kLeastRun = 32;  // contiguous elements that neighbouring threads load, at least: a cache line of float32

struct Tiling {
  int lines, length;  // the map: lines of length pixels
  int kernel;         // taps in each direction
  bool by_rows;       // lines are rows
  int flank;          // pixels beyond each border that are computed too
  int64_t maps;
  int channels;  // in shared memory at a time

  int line_tiles, run_tiles;    // tiles of a map, across and along its lines
  int tile_lines, tile_groups;  // of the largest tile
  int tile_maps;                // per block; more than one only if a tile is a whole map

  SA_LAYERS_HOST_DEVICE int reach() const { return kernel / 2; }
  SA_LAYERS_HOST_DEVICE int all_lines() const { return lines + 2 * flank; }
  SA_LAYERS_HOST_DEVICE int all_pixels() const { return length + 2 * flank; }
  SA_LAYERS_HOST_DEVICE int all_groups() const { return (all_pixels() + kGroup - 1) / kGroup; }
  // Lines of a tile including its halo.
  SA_LAYERS_HOST_DEVICE int halo_lines() const { return tile_lines + kernel - 1; }
  // Groups after the first of a window of kGroup + kernel - 1 pixels.
  SA_LAYERS_HOST_DEVICE int tail_groups() const { return (kernel + 2) / kGroup; }
  // The row stride in shared memory, in floats: an odd number of groups, so that neighbouring lines start in different
  // banks.
  SA_LAYERS_HOST_DEVICE int pitch() const { return kGroup * ((tile_groups + tail_groups()) | 1); }
  SA_LAYERS_HOST_DEVICE int channel_size() const { return halo_lines() * pitch(); }

  SA_LAYERS_HOST_DEVICE int pixels() const { return lines * length; }
  // Strides in global memory of lines, of pixels of a line, and of taps in both directions.
  SA_LAYERS_HOST_DEVICE int line_step() const { return by_rows ? length : 1; }
  SA_LAYERS_HOST_DEVICE int pixel_step() const { return by_rows ? 1 : lines; }
  SA_LAYERS_HOST_DEVICE int tap_across_step() const { return pixels() * (by_rows ? kernel : 1); }
  SA_LAYERS_HOST_DEVICE int tap_along_step() const { return pixels() * (by_rows ? 1 : kernel); }

  int tiles() const { return line_tiles * run_tiles; }
  int threads() const { return tile_lines * tile_groups * tile_maps; }
  int64_t shared_bytes() const { return int64_t(sizeof(float)) * tile_maps * channels * channel_size(); }
  int64_t blocks() const { return tiles() * ceil_div<int64_t>(maps, tile_maps); }
  // Elements loaded by all blocks, including idle lanes: the weights of every lane, and the halos.
  int64_t cost() const {
    const int64_t lanes = (threads() + 31) / 32 * 32;
    return blocks() * (lanes * kGroup * kernel * kernel + int64_t(tile_maps) * channels * channel_size());
  }
};

// The cheapest tiling of maps of rows x columns pixels, or one of no threads if tiles do not fit shared memory. A flank
// is folded inside tiles, so a tile that has one must also have the pixels that the flank reflects.
inline Tiling make_tiling(int rows, int columns, int kernel, bool by_rows, int flank, int64_t maps, int channels) {
  Tiling best{
      by_rows ? rows : columns, by_rows ? columns : rows, kernel, by_rows, flank, maps, channels, 1, 1, 0, 0, 1};
  Tiling tiling = best;
  const int least_side = flank ? 2 * flank + 1 : 1;
  const int groups = best.all_groups();
  for (int wanted = groups < kThreads ? groups : kThreads; wanted > 0; --wanted) {
    tiling.run_tiles = ceil_div(groups, wanted);
    tiling.tile_groups = ceil_div(groups, tiling.run_tiles);
    if (tiling.tile_groups != wanted) continue;  // equal to the tiles of a smaller number
    if (tiling.run_tiles > 1 && tiling.all_pixels() / tiling.run_tiles < least_side) continue;
    if (by_rows && tiling.run_tiles > 1 && kGroup * tiling.tile_groups < kLeastRun) continue;
    tiling.tile_maps = 1;
    for (tiling.line_tiles = ceil_div(tiling.all_lines(), kThreads / tiling.tile_groups);; ++tiling.line_tiles) {
      tiling.tile_lines = ceil_div(tiling.all_lines(), tiling.line_tiles);
      if (tiling.shared_bytes() <= kDefaultSharedBytes || tiling.tile_lines == 1) break;
    }
    if (tiling.shared_bytes() > kDefaultSharedBytes) continue;
    if (tiling.line_tiles > 1 && tiling.all_lines() / tiling.line_tiles < least_side) continue;
    if (!by_rows && tiling.line_tiles > 1 && tiling.tile_lines < kLeastRun / 2)
      continue;  // otherwise halos are too large
    if (tiling.tiles() == 1) {
      const int64_t spread = maps / kEnoughBlocks;
      while (tiling.tile_maps < spread && tiling.threads() / tiling.tile_maps * (tiling.tile_maps + 1) <= kThreads) {
        ++tiling.tile_maps;
        if (tiling.shared_bytes() > kDefaultSharedBytes) {
          --tiling.tile_maps;
          break;
        }
      }
    }
    if (best.threads() == 0 || tiling.cost() < best.cost()) best = tiling;
  }
  return best;
}

}  // namespace sa_layers::cuda
