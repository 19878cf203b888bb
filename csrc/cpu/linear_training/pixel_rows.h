// Channels-last maps that may be slices of a wider map's channels, as rows of pixels.
#pragma once

#include "cpu/linear_training/problem.h"
#include "cpu/runtime/tensors.h"

namespace sa_layers::cpu {

// The stride between the pixels of a map (N, H, W, C) whose channels are contiguous and whose pixels are equally far
// apart; otherwise -1.
inline int64_t pixel_stride(const Tensor& map) {
  if (map.size(3) > 1 && map.stride(3) != 1) return -1;
  int64_t stride = -1, next = 0;
  for (int64_t dim = 2; dim >= 0; --dim) {
    if (map.size(dim) == 1) continue;
    if (stride == -1) {
      stride = map.stride(dim);
    } else if (map.stride(dim) != next) {
      return -1;
    }
    next = map.stride(dim) * map.size(dim);
  }
  return stride == -1 ? map.size(3) : stride;
}

// A map that is read: itself, or a contiguous copy if the kernels cannot read it in place.
class ReadRows {
 public:
  explicit ReadRows(const Tensor& map) : map_(pixel_stride(map) < 0 ? torch::stable::contiguous(map) : map) {}
  PixelRows rows() const { return {data<float>(map_), pixel_stride(map_)}; }

 private:
  Tensor map_;
};

// The stride between the pixels of a map that is written in place.
inline int64_t checked_pixel_stride(const char* name, const Tensor& map) {
  const int64_t stride = pixel_stride(map);
  STD_TORCH_CHECK(stride >= map.size(3), name, " must be channels last, or a slice of the channels of such a map");
  return stride;
}

}  // namespace sa_layers::cpu
