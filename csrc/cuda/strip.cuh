// Channels of a map that lie side by side and that one instruction loads or stores: 16 bytes, or where channels and
// addresses do not allow that a single one.
#pragma once

#include <cstdint>

#include "cuda/element.cuh"

namespace sa_layers::cuda {

template <typename T, int kWidth>
struct alignas(kWidth * sizeof(T)) Strip {
  T elements[kWidth];
};

template <typename T>
constexpr int kStripWidth = 16 / sizeof(T);

constexpr int64_t kEnoughThreads = 1 << 16;  // before a thread gets several strips

template <int kWidth, typename T>
__device__ Strip<T, kWidth> load_strip(const T* from) {
  return *reinterpret_cast<const Strip<T, kWidth>*>(from);
}

template <typename T, int kWidth>
__device__ void store_strip(const Strip<T, kWidth>& strip, T* to) {
  *reinterpret_cast<Strip<T, kWidth>*>(to) = strip;
}

// Coefficients of a strip's channels, which nobody writes: through the read-only cache, 16 bytes at a time.
template <int kWidth, typename C>
__device__ void load_coefficients(const C* __restrict__ from, C (&to)[kWidth]) {
  constexpr int kAtOnce = kWidth * int(sizeof(C)) < 16 ? kWidth : kStripWidth<C>;
#pragma unroll
  for (int i = 0; i < kWidth; i += kAtOnce) {
    const Strip<C, kAtOnce> some = load_strip<kAtOnce>(from + i);
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) to[i + j] = some.elements[j];
  }
}

// Whether a map of so many channels, and coefficients of them, can be read and written in strips of 16 bytes.
template <typename T, typename... Pointers>
bool fits_strips(int64_t channels, const Pointers*... pointers) {
  return channels % kStripWidth<T> == 0 && ((reinterpret_cast<uintptr_t>(pointers) | ...) % 16) == 0;
}

// The greater of two, or the one that is no number, as in torch's max-pooling and ReLU.
template <typename C>
__device__ C greater(C a, C b) {
  return a > b || a != a ? a : b;
}
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
template <>
__device__ inline float greater(float a, float b) {  // one instruction instead of three
  float result;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}
#endif

}  // namespace sa_layers::cuda
