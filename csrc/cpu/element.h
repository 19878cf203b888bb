// Element types as the kernels see them: storage, and the type that sums are kept in. No torch header here.
#pragma once

#include <cstdint>
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
// Sums of half-precision products are kept in float32.
template <typename T>
using Compute = typename ComputeType<T>::type;

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Memory of one task. Uninitialised, since every kernel writes what it reads; aligned, since a vector that lies in two
// lines of the cache costs two loads.
template <typename T, int kBytes = 64>
class Scratch {
 public:
  explicit Scratch(int64_t count) : data_(static_cast<T*>(operator new(count * sizeof(T), kAlignment))) {}
  ~Scratch() { operator delete(data_, kAlignment); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* data() const { return data_; }

 private:
  static constexpr std::align_val_t kAlignment{kBytes};
  T* data_;
};

}  // namespace sa_layers::cpu
