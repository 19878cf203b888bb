// Takes the place of csrc/cuda/copy_ahead.cuh: what need not be there before a thread has waited is there at once.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace sa_layers::cuda {

inline void copy_ahead(void* to, const void* from) {
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % 16) std::abort();  // as the device would
  std::memcpy(to, from, 16);
}
inline void end_copies() {}
template <int kPending>
void await_copies() {}

}  // namespace sa_layers::cuda
