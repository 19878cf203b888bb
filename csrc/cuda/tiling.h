// How weight maps are cut into the tiles of thread blocks. Plain C++, for host and device.
//
// A map is seen as lines of pixels, and a thread computes a group of four pixels of a line. Lines are rows where groups
// can be loaded by one instruction each. Elsewhere lines are columns: then neighbouring threads have neighbouring
// pixels of a row, so the loads of single elements are as well coalesced, whatever the width of the map.
#pragma once

#include <cstdint>

#include "footprint.h"

namespace sa_layers::cuda {

constexpr int kGroup = 4;                // pixels of a thread
constexpr int kThreads = 128;            // of a block, at most
constexpr int kSharedBytes = 48 * 1024;  // of a block, at most: what every device gives unasked
constexpr int kEnoughBlocks = 256;       // before maps are packed: about two for every multiprocessor of a large device
constexpr int kLeastRun = 32;  // neighbouring elements that neighbouring threads load: a cache line of float32

struct Tiling {
  int lines, length;  // the map: lines of length pixels
  int kernel;         // taps in each direction
  bool by_rows;       // lines are rows
  int flank;          // how many pixels beyond each border are computed too
  int64_t maps;
  int channels;  // whose tiles are in shared memory together

  int line_tiles, run_tiles;    // tiles of a map, across and along its lines
  int tile_lines, tile_groups;  // of the largest tile
  int tile_maps;                // of a block; more than one only where a tile is a whole map

  SA_LAYERS_HOST_DEVICE int reach() const { return kernel / 2; }
  SA_LAYERS_HOST_DEVICE int all_lines() const { return lines + 2 * flank; }
  SA_LAYERS_HOST_DEVICE int all_pixels() const { return length + 2 * flank; }
  SA_LAYERS_HOST_DEVICE int all_groups() const { return (all_pixels() + kGroup - 1) / kGroup; }
  // Lines of a tile and of what its footprints reach beyond it.
  SA_LAYERS_HOST_DEVICE int halo_lines() const { return tile_lines + kernel - 1; }
  // Groups that a window of kGroup + kernel - 1 pixels needs after its first.
  SA_LAYERS_HOST_DEVICE int tail_groups() const { return (kernel + 2) / kGroup; }
  // Floats from line to line: an odd number of groups, so that the lines of neighbouring threads lie in other banks.
  SA_LAYERS_HOST_DEVICE int pitch() const { return kGroup * ((tile_groups + tail_groups()) | 1); }
  SA_LAYERS_HOST_DEVICE int channel_size() const { return halo_lines() * pitch(); }

  SA_LAYERS_HOST_DEVICE int pixels() const { return lines * length; }
  // Distances in memory between neighbouring lines and between neighbouring pixels of a line, and of taps likewise.
  SA_LAYERS_HOST_DEVICE int line_step() const { return by_rows ? length : 1; }
  SA_LAYERS_HOST_DEVICE int pixel_step() const { return by_rows ? 1 : lines; }
  SA_LAYERS_HOST_DEVICE int tap_across_step() const { return pixels() * (by_rows ? kernel : 1); }
  SA_LAYERS_HOST_DEVICE int tap_along_step() const { return pixels() * (by_rows ? 1 : kernel); }

  int tiles() const { return line_tiles * run_tiles; }
  int threads() const { return tile_lines * tile_groups * tile_maps; }
  int64_t shared_bytes() const { return int64_t(sizeof(float)) * tile_maps * channels * channel_size(); }
  int64_t blocks() const { return tiles() * ((maps + tile_maps - 1) / tile_maps); }
  // Elements that the lanes of all blocks load, idle lanes as well: the weights of every lane, and the halos.
  int64_t cost() const {
    const int64_t lanes = (threads() + 31) / 32 * 32;
    return blocks() * (lanes * kGroup * kernel * kernel + int64_t(tile_maps) * channels * channel_size());
  }
};

SA_LAYERS_HOST_DEVICE inline int divide_up(int a, int b) { return (a + b - 1) / b; }

// The cheapest tiling of maps of rows x columns pixels, or one of no threads where tiles do not fit into shared memory.
// A flank is folded inside tiles: a tile that has one must also have the pixels that the flank mirrors.
inline Tiling make_tiling(int rows, int columns, int kernel, bool by_rows, int flank, int64_t maps, int channels) {
  Tiling best{
      by_rows ? rows : columns, by_rows ? columns : rows, kernel, by_rows, flank, maps, channels, 1, 1, 0, 0, 1};
  Tiling tiling = best;
  const int least_side = flank ? 2 * flank + 1 : 1;
  const int groups = best.all_groups();
  for (int wanted = groups < kThreads ? groups : kThreads; wanted > 0; --wanted) {
    tiling.run_tiles = divide_up(groups, wanted);
    tiling.tile_groups = divide_up(groups, tiling.run_tiles);
    if (tiling.tile_groups != wanted) continue;  // the same tiles as those of a smaller number
    if (tiling.run_tiles > 1 && tiling.all_pixels() / tiling.run_tiles < least_side) continue;
    if (by_rows && tiling.run_tiles > 1 && kGroup * tiling.tile_groups < kLeastRun) continue;
    tiling.tile_maps = 1;
    for (tiling.line_tiles = divide_up(tiling.all_lines(), kThreads / tiling.tile_groups);; ++tiling.line_tiles) {
      tiling.tile_lines = divide_up(tiling.all_lines(), tiling.line_tiles);
      if (tiling.shared_bytes() <= kSharedBytes || tiling.tile_lines == 1) break;
    }
    if (tiling.shared_bytes() > kSharedBytes) continue;
    if (tiling.line_tiles > 1 && tiling.all_lines() / tiling.line_tiles < least_side) continue;
    if (!by_rows && tiling.line_tiles > 1 && tiling.tile_lines < kLeastRun / 2) continue;  // or halos grow too tall
    if (tiling.tiles() == 1) {
      const int64_t spread = maps / kEnoughBlocks;
      while (tiling.tile_maps < spread && tiling.threads() / tiling.tile_maps * (tiling.tile_maps + 1) <= kThreads) {
        ++tiling.tile_maps;
        if (tiling.shared_bytes() > kSharedBytes) {
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
