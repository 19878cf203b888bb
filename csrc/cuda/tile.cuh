// A block's tile of the maps: which pixels it has, and the copy in shared memory of what its footprints reach.
#pragma once

#include "cuda/element.cuh"
#include "cuda/reflection.cuh"
#include "cuda/tiling.h"

namespace sa_layers::cuda {

// One tile of one map, or the same whole tile of several maps. Lines and pixels are counted in the map; a tile with a
// flank begins at a negative one.
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
  // Tiles of nearly the same size. Those along rows begin where a group does, so that groups stay aligned.
  const int line = row * tiling.all_lines() / tiling.line_tiles;
  const int unit = tiling.by_rows ? kGroup : 1, units = tiling.all_pixels() / unit;
  const int pixel = unit * (run * units / tiling.run_tiles);
  tile.first_line = line - tiling.flank;
  tile.lines = (row + 1) * tiling.all_lines() / tiling.line_tiles - line;
  tile.first_pixel = pixel - tiling.flank;
  tile.pixels = unit * ((run + 1) * units / tiling.run_tiles) - pixel;
  return tile;
}

// A thread's group of pixels: places count from the tile's first, `count` is 0 for a thread without work.
struct Group {
  int map, line, pixel, count;

  // Where the windows of its first line of taps begin in the copy.
  __device__ int place(const Tiling& tiling) const {
    return map * tiling.channels * tiling.channel_size() + line * tiling.pitch() + pixel;
  }
  // Where its first pixel lies in a map.
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

  __device__ int64_t image(int64_t weight_map) const { return weight_map / weight_channels; }
  // The first map of those that share this weight map, in elements, and how many they are.
  __device__ int64_t begin(int64_t weight_map) const {
    return (image(weight_map) * channels + weight_map % weight_channels) * pixels;
  }
  __device__ int count(int64_t weight_map) const {
    return int((channels - weight_map % weight_channels + weight_channels - 1) / weight_channels);
  }
  __device__ int64_t step() const { return weight_channels * pixels; }
};

// Copies what the tile's footprints reach, `count` channels from the one numbered `first`, with its borders resolved.
template <int kKernel, typename T>
__device__ void copy_tile(const Tiling& tiling, const Tile& tile, const Channels& channels, const T* maps, int first,
                          int count, bool reflecting, float* copy) {
  const int lines = tile.lines + kKernel - 1, groups = divide_up(tile.pixels, kGroup) + tiling.tail_groups();
  const int places = lines * groups * kGroup;
  for (int index = int(threadIdx.x); index < tile.maps * places; index += int(blockDim.x)) {
    // As neighbouring threads compute neighbouring lines or groups, so they copy them.
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
    const T* from = maps + channels.begin(weight_map) + first * channels.step() + line * tiling.line_step() +
                    pixel * tiling.pixel_step();
    float* to = copy + map * tiling.channels * tiling.channel_size() + copy_line * tiling.pitch() + copy_pixel;
#pragma unroll 8
    for (int channel = 0; channel < count; ++channel) {
      to[channel * tiling.channel_size()] = channel < own ? widen(from[channel * channels.step()]) : 0.0f;
    }
  }
}

// The pixels of the copy that a group's taps along a line reach, read four at a time.
template <int kKernel>
struct Window {
  static constexpr int kQuads = (kGroup + kKernel - 1 + 3) / 4;
  Quad<float> quads[kQuads];

  __device__ explicit Window(const float* line) {
#pragma unroll
    for (int i = 0; i < kQuads; ++i) quads[i] = reinterpret_cast<const Quad<float>*>(line)[i];
  }
  __device__ float operator[](int i) const { return quads[i / 4].elements[i % 4]; }
};

// A group in global memory: at once where lines are rows, which are then aligned, else as many elements as there are.
template <typename T>
__device__ void load_group(const T* from, const Tiling& tiling, int count, float (&to)[kGroup]) {
  if (tiling.by_rows) {
    const Quad<T> quad = *reinterpret_cast<const Quad<T>*>(from);
#pragma unroll
    for (int i = 0; i < kGroup; ++i) to[i] = widen(quad.elements[i]);
  } else {
#pragma unroll
    for (int i = 0; i < kGroup; ++i) to[i] = i < count ? widen(from[i * tiling.pixel_step()]) : 0.0f;
  }
}

template <typename T>
__device__ void store_group(const float (&from)[kGroup], const Tiling& tiling, int count, T* to) {
  if (tiling.by_rows) {
    Quad<T> quad;
#pragma unroll
    for (int i = 0; i < kGroup; ++i) narrow(from[i], quad.elements[i]);
    *reinterpret_cast<Quad<T>*>(to) = quad;
  } else {
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      if (i < count) narrow(from[i], to[i * tiling.pixel_step()]);
    }
  }
}

}  // namespace sa_layers::cuda
