// A block's tile of the maps: its pixels, and the copy in shared memory of what its footprints reach.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/aggregation/tiling.h"
#include "cuda/common/element.cuh"
#include "cuda/common/pack.cuh"
#include "footprint.h"

namespace sa_layers::cuda {

// sa_layers::reflect() in 32-bit arithmetic without a division. The loop has one iteration at most, unless the map is
// smaller than the footprint.
__device__ inline int bounce(int index, int size) {
  if (size == 1) return 0;
  while (index < 0 || index >= size) index = index < 0 ? -index : 2 * (size - 1) - index;
  return index;
}

// Iterates over the padded positions, from -padding to size - 1 + padding, that reflect to a pixel, in ascending order:
//   for (Images images(...); images.left(); images.next()) use(images.position);
// Their distances alternate between twice the pixel's distances from the two borders.
struct Images {
  int position, up, down, end;

  __device__ Images(int pixel, int size, int padding)
      : position(pixel), up(2 * (size - 1 - pixel)), down(2 * pixel), end(size + padding) {
    if (up == 0 || down == 0) {  // a border pixel is not repeated
      up = down = size > 1 ? 2 * (size - 1) : 1;
    }
    while (position - down >= -padding) {
      position -= down;
      turn();
    }
  }
  __device__ bool left() const { return position < end; }
  __device__ void next() {
    position += up;
    turn();
  }
  __device__ void turn() {
    const int last_up = up;
    up = down;
    down = last_up;
  }
};

// One tile of one map, or several whole maps. Lines and pixels are counted in the map; a tile with a flank starts at a
// negative index.
struct Tile {
  int64_t first_map;
  int maps, first_line, lines, first_pixel, pixels;
};

__device__ inline Tile tile_of_block(const Tiling& tiling) {
  const int tiles = tiling.line_tiles * tiling.run_tiles;
  const int index = int(blockIdx.x % tiles), run = index % tiling.run_tiles, row = index / tiling.run_tiles;
  Tile tile;
  tile.first_map = int64_t(blockIdx.x / tiles) * tiling.tile_maps;
  const int64_t maps_left = tiling.maps - tile.first_map;
  tile.maps = maps_left < tiling.tile_maps ? int(maps_left) : tiling.tile_maps;
  // Tiles of nearly equal size. Those along rows begin at a group, so that groups stay aligned.
  const int line = row * tiling.all_lines() / tiling.line_tiles;
  const int unit = tiling.by_rows ? kGroup : 1, units = tiling.all_pixels() / unit;
  const int pixel = unit * (run * units / tiling.run_tiles);
  tile.first_line = line - tiling.flank;
  tile.lines = (row + 1) * tiling.all_lines() / tiling.line_tiles - line;
  tile.first_pixel = pixel - tiling.flank;
  tile.pixels = unit * ((run + 1) * units / tiling.run_tiles) - pixel;
  return tile;
}

// A thread's group of pixels, relative to the tile; `count` is 0 for an idle thread.
struct Group {
  int map, line, pixel, count;

  // The offset in the copy of the window of its first line of taps.
  __device__ int place(const Tiling& tiling) const {
    return map * tiling.channels * tiling.channel_size() + line * tiling.pitch() + pixel;
  }
  // The offset of its first pixel in a map.
  __device__ int offset(const Tiling& tiling, const Tile& tile) const {
    return (tile.first_line + line) * tiling.line_step() + (tile.first_pixel + pixel) * tiling.pixel_step();
  }
};

__device__ inline Group group_of_thread(const Tiling& tiling, const Tile& tile) {
  const int thread = int(threadIdx.x), place = thread % (tiling.tile_lines * tiling.tile_groups);
  Group group;
  group.map = thread / (tiling.tile_lines * tiling.tile_groups);
  group.line = tiling.by_rows ? place / tiling.tile_groups : place % tiling.tile_lines;
  group.pixel = kGroup * (tiling.by_rows ? place % tiling.tile_groups : place / tiling.tile_lines);
  const int left = tile.pixels - group.pixel;
  const bool works = group.map < tile.maps && group.line < tile.lines && left > 0;
  group.count = !works ? 0 : left < kGroup ? left : kGroup;
  return group;
}

// The maps (N, C, H, W) that share the weight maps (N, Cw, ...).
struct Channels {
  int64_t channels, weight_channels, pixels;
  int64_t group_step,
      channel_step;  // from the first channel of a weight map to that of the next, between channels of one

  __device__ int64_t image(int64_t weight_map) const { return weight_map / weight_channels; }
  // The offset, in elements, of the first map that shares this weight map, and the number of these maps.
  __device__ int64_t begin(int64_t weight_map) const {
    return (image(weight_map) * channels + weight_map % weight_channels * group_step) * pixels;
  }
  __device__ int count(int64_t weight_map) const {
    return int((channels - weight_map % weight_channels + weight_channels - 1) / weight_channels);
  }
  __device__ int64_t step() const { return channel_step * pixels; }
};

// Copies what the tile's footprints reach, `count` channels starting at `first`, with padding resolved, times
// factor(index of the weight map, offset of the pixel in a map).
template <int kKernel, typename T, typename Factor>
__device__ void copy_tile(const Tiling& tiling, const Tile& tile, const Channels& channels, const T* maps, int first,
                          int count, bool reflecting, const Factor& factor, float* copy) {
  const int lines = tile.lines + kKernel - 1, groups = ceil_div(tile.pixels, kGroup) + tiling.tail_groups();
  const int places = lines * groups * kGroup;
  for (int index = int(threadIdx.x); index < tile.maps * places; index += int(blockDim.x)) {
    // Neighbouring threads copy, as they compute, neighbouring lines or groups.
    const int map = index / places, in_group = index % kGroup, group_and_line = index % places / kGroup;
    const int copy_line = tiling.by_rows ? group_and_line / groups : group_and_line % lines;
    const int group = tiling.by_rows ? group_and_line % groups : group_and_line / lines;
    const int copy_pixel = kGroup * group + in_group;
    int line = tile.first_line - kKernel / 2 + copy_line, pixel = tile.first_pixel - kKernel / 2 + copy_pixel;
    if (reflecting) {
      line = bounce(line, tiling.lines);
      pixel = bounce(pixel, tiling.length);
    }
    const bool inside = line >= 0 && line < tiling.lines && pixel >= 0 && pixel < tiling.length;
    const int64_t weight_map = tile.first_map + map;
    const int own = inside ? channels.count(weight_map) - first : 0;
    const int offset = line * tiling.line_step() + pixel * tiling.pixel_step();
    const T* from = maps + channels.begin(weight_map) + first * channels.step() + offset;
    float scale = 1.0f;
    if (inside) scale = factor(weight_map, offset);
    float* to = copy + map * tiling.channels * tiling.channel_size() + copy_line * tiling.pitch() + copy_pixel;
#pragma unroll 8
    for (int channel = 0; channel < count; ++channel) {
      to[channel * tiling.channel_size()] = channel < own ? scale * widen(from[channel * channels.step()]) : 0.0f;
    }
  }
}

// The pixels of the copy that a group's taps along a line reach, loaded four at a time.
template <int kKernel>
struct Window {
  static constexpr int kPacks = (kGroup + kKernel - 1 + 3) / 4;
  Pack<float, 4> packs[kPacks];

  __device__ explicit Window(const float* line) {
#pragma unroll
    for (int i = 0; i < kPacks; ++i) packs[i] = reinterpret_cast<const Pack<float, 4>*>(line)[i];
  }
  __device__ float operator[](int i) const { return packs[i / 4][i % 4]; }
};

// Loads a group from global memory: as one pack if lines are rows, which are then aligned, otherwise element by
// element.
template <typename T>
__device__ void load_group(const T* from, const Tiling& tiling, int count, float (&to)[kGroup]) {
  if (tiling.by_rows) {
    const Pack<T, 4> pack = *reinterpret_cast<const Pack<T, 4>*>(from);
#pragma unroll
    for (int i = 0; i < kGroup; ++i) to[i] = widen(pack[i]);
  } else {
#pragma unroll
    for (int i = 0; i < kGroup; ++i) to[i] = i < count ? widen(from[i * tiling.pixel_step()]) : 0.0f;
  }
}

template <typename T>
__device__ void store_group(const float (&from)[kGroup], const Tiling& tiling, int count, T* to) {
  if (tiling.by_rows) {
    Pack<T, 4> pack;
#pragma unroll
    for (int i = 0; i < kGroup; ++i) narrow(from[i], pack[i]);
    *reinterpret_cast<Pack<T, 4>*>(to) = pack;
  } else {
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      if (i < count) narrow(from[i], to[i * tiling.pixel_step()]);
    }
  }
}

}  // namespace sa_layers::cuda
