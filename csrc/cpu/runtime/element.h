// Element types of the kernels: how a number is stored, and the type in which it is computed. No torch header here.
#pragma once

#include <cstdint>
#include <cstring>
#include <new>

namespace sa_layers::cpu {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <typename T>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};
// Half precision is computed and accumulated in float32.
template <typename T>
using Compute = typename ComputeType<T>::type;

// The workspace of one task. Uninitialised, since every kernel writes what it reads. Aligned, since a vector across two
// cache lines takes two loads.
template <typename T, int kBytes = 64>
class Scratch {
 public:
  explicit Scratch(int64_t count) : data_(static_cast<T*>(operator new(count * sizeof(T), kAlignment))) {
#ifdef SA_LAYERS_FILL_SCRATCH  // with NaN and -1, so that tests notice what is read before it is written
    std::memset(static_cast<void*>(data_), 0xff, count * sizeof(T));
#endif
  }
  ~Scratch() { operator delete(data_, kAlignment); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* data() const { return data_; }

 private:
  static constexpr std::align_val_t kAlignment{kBytes};
  T* data_;
};

}  // namespace sa_layers::cpu
