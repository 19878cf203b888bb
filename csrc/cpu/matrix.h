// Matrices of the fused operators: columns in full vectors.
#pragma once

#include "cpu/element.h"

namespace sa_layers::cpu {

// Columns of a matrix come in groups of the widest vector's lanes, and are padded with zeros where they do not.
constexpr int64_t kGroupColumns = 16;
inline int64_t pad_columns(int64_t columns) { return divide_up(columns, kGroupColumns) * kGroupColumns; }

}  // namespace sa_layers::cpu
