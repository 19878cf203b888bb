// Matrices of the fused operators: columns in full vectors, scratch memory on cache lines.
#pragma once

#include "cpu/element.h"

namespace sa_layers::cpu {

// Columns of a matrix come in groups of the widest vector's lanes, and are padded with zeros where they do not.
constexpr int64_t kGroupColumns = 16;
inline int64_t pad_columns(int64_t columns) { return divide_up(columns, kGroupColumns) * kGroupColumns; }

// Vectors in it lie within a line of the cache.
class AlignedScratch {
 public:
  explicit AlignedScratch(int64_t count) : memory_(count + kGroupColumns) {
    data_ = memory_.data() + (-(reinterpret_cast<uintptr_t>(memory_.data()) / sizeof(float)) & (kGroupColumns - 1));
  }
  float* data() const { return data_; }

 private:
  Scratch<float> memory_;
  float* data_;
};

}  // namespace sa_layers::cpu
