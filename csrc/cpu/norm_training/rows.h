// Channels-last maps, slices of wider ones included, as rows of equal length.
#pragma once

#include <numeric>
#include <vector>

#include "cpu/norm_training/problem.h"
#include "cpu/runtime/tensors.h"

namespace sa_layers::cpu {

// Statistics and sums, and what is computed from them.
inline void check_float64(const char* name, const Tensor& tensor, const std::vector<int64_t>& shape) {
  check_shape(name, tensor, shape);
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Double, name, " must be float64, got ",
                  torch::headeronly::toString(tensor.scalar_type()));
}

inline void check_pixels(const char* name, const Tensor& map) {
  STD_TORCH_CHECK(map.dim() > 1, name, " must have pixels and channels, got the shape ", shape_text(shape_of(map)));
  STD_TORCH_CHECK(map.size(-1) > 0, name, " must have at least one channel");
}

inline void check_same(const char* name, const Tensor& map, const char* first_name, const Tensor& first) {
  check_shape(name, map, shape_of(first));
  check_like(name, map, first_name, first);
}

inline int64_t pixels_of(const Tensor& map) { return map.numel() / map.size(-1); }

// The distance between the pixels of a map (..., C), or 0 if they do not follow each other at one distance.
inline int64_t pixel_stride(const Tensor& map) {
  const int64_t channels = map.size(-1);
  if (channels > 1 && map.stride(-1) != 1) return 0;
  int64_t pixel = 0, next = 0;
  for (int64_t dim = map.dim() - 2; dim >= 0; --dim) {
    if (map.size(dim) == 1) continue;
    if (pixel == 0) pixel = next = map.stride(dim);
    if (map.stride(dim) != next) return 0;
    next *= map.size(dim);
  }
  if (pixel == 0) return channels;
  return pixel >= channels ? pixel : 0;
}

inline bool are_contiguous(std::initializer_list<Tensor> maps) {
  for (const Tensor& map : maps) {
    if (pixel_stride(map) != map.size(-1)) return false;
  }
  return true;
}

// A map that is read: itself, or a contiguous copy if its pixels do not follow each other.
inline Tensor as_rows(const Tensor& map) { return pixel_stride(map) > 0 ? map : torch::stable::contiguous(map); }

// A map that is written: itself, or a contiguous copy that finish() copies back.
class WrittenRows {
 public:
  explicit WrittenRows(const Tensor& map) : map_(map), rows_(as_rows(map)) {}
  const Tensor& rows() const { return rows_; }
  void finish() {
    if (rows_.data_ptr() != map_.data_ptr()) torch::stable::copy_(map_, rows_);
  }

 private:
  Tensor map_, rows_;
};

template <typename T>
Map<const T> map_of(const Tensor& rows) {
  return {data<T>(rows), pixel_stride(rows)};
}
template <typename T>
Map<T> mutable_map_of(const Tensor& rows) {
  return {mutable_data<T>(rows), pixel_stride(rows)};
}

// How a kernel sees a map: where few channels would leave lanes idle, several pixels of a contiguous map become a row.
// `tail` numbers are left after the last whole row.
struct Folding {
  int64_t channels, pixels_per_row, width, rows, tail;

  Folding(int64_t pixels, int64_t channels, bool is_contiguous)
      : channels(channels),
        pixels_per_row(is_contiguous && channels <= kMaxFolded ? std::lcm(channels, kMaxLanes) / max(1, channels) : 1),
        width(channels * pixels_per_row),
        rows(pixels / pixels_per_row),
        tail((pixels - rows * pixels_per_row) * channels) {}

  // Coefficients of the channels, once for every pixel of a row.
  template <typename C, typename From>
  std::vector<C> repeat(const From* from) const {
    std::vector<C> to(width);
    for (int64_t i = 0; i < width; ++i) to[i] = static_cast<C>(from[i % channels]);
    return to;
  }

 private:
  static constexpr int64_t kMaxLanes = 16, kMaxFolded = 64;
};

}  // namespace sa_layers::cpu
