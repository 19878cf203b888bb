// Words that are read and written at once.
#pragma once

#include <cstdint>

namespace sa_layers::cuda {

template <int kWords>
struct alignas(4 * kWords) Words {
  uint32_t of[kWords];
};

}  // namespace sa_layers::cuda
