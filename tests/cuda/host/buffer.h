// Random tensors, and the comparison of results with what the reference expects.
#pragma once

#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include "cuda/aggregation/launch.h"
#include "cuda/common/element.cuh"
#include "reference.h"

namespace sa_layers::cuda {

inline std::mt19937 generator;

inline int pick(int least, int most) { return std::uniform_int_distribution<int>(least, most)(generator); }

// A tensor of exactly its size, so that AddressSanitizer sees accesses beyond it, `shift` elements off the alignment of
// the heap.
template <typename T>
struct Buffer {
  std::vector<T> memory;
  int shift;

  Buffer(int64_t size, int shift_) : memory(size + shift_), shift(shift_) {}
  T* data() { return memory.data() + shift; }
  int64_t size() const { return int64_t(memory.size()) - shift; }

  void randomise() {
    for (T& element : memory) narrow(std::uniform_real_distribution<Compute<T>>(-1, 1)(generator), element);
  }
  void forget() {
    for (T& element : memory) narrow(std::numeric_limits<Compute<T>>::quiet_NaN(), element);
  }
};

template <typename T>
constexpr double kTolerance = std::is_same_v<T, double>   ? 1e-13
                              : std::is_same_v<T, float>  ? 1e-5
                              : std::is_same_v<T, __half> ? 1e-3
                                                          : 8e-3;

// A sum, and the sum of its magnitudes, which bounds its rounding error.
struct Expected {
  std::vector<double> sum, magnitude;
  explicit Expected(int64_t size) : sum(size), magnitude(size) {}
  void add(int64_t at, double product) { sum[at] += product, magnitude[at] += std::fabs(product); }
};

// Compares results; the tolerance is relative to the magnitude of the sums.
template <typename T>
bool agrees(const char* name, Buffer<T>& result, const Expected& expected, double tolerance = kTolerance<T>) {
  for (int64_t i = 0; i < result.size(); ++i) {
    const double error = std::fabs(double(widen(result.data()[i])) - expected.sum[i]);
    if (!(error <= tolerance * (expected.magnitude[i] + 1e-3))) {
      std::printf("%s: element %ld is %g instead of %g\n", name, long(i), double(widen(result.data()[i])),
                  expected.sum[i]);
      return false;
    }
  }
  return true;
}

inline Aggregation geometry(const reference::Problem& p) {
  return {{{p.height, p.kernel[0], p.stride[0], p.dilation[0]},
           {p.width, p.kernel[1], p.stride[1], p.dilation[1]},
           p.clamped      ? Padding::kClamp
           : p.reflecting ? Padding::kReflect
                          : Padding::kZeros},
          p.batch,
          p.channels,
          p.weight_channels,
          p.contiguous ? Groups::kContiguous : Groups::kInterleaved};
}

}  // namespace sa_layers::cuda
