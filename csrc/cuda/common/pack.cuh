// Vectorized loads and stores: numbers that one instruction moves.
#pragma once

#include <cstdint>

#include "cuda/common/element.cuh"
#include "footprint.h"

namespace sa_layers::cuda {

// N numbers that one instruction loads or stores, or one instruction per 16 bytes. The address must be a multiple of
// the pack's alignment.
template <typename T, int N>
struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Pack {
  T elements[N];

  SA_LAYERS_HOST_DEVICE T& operator[](int i) { return elements[i]; }
  SA_LAYERS_HOST_DEVICE const T& operator[](int i) const { return elements[i]; }
};

template <int N, typename T>
__device__ Pack<T, N> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, N>*>(from);
}
template <int N, typename T>
__device__ void store_pack(const Pack<T, N>& pack, T* to) {
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

template <typename T>
constexpr int kPackWidth = 16 / sizeof(T);

constexpr int64_t kEnoughThreads = 1 << 16;  // in flight before a thread processes several packs

// Coefficients of a pack's channels, through the read-only cache, 16 bytes at a time.
template <int kWidth, typename C>
__device__ void load_coefficients(const C* __restrict__ from, C (&to)[kWidth]) {
  constexpr int kAtOnce = kWidth * int(sizeof(C)) < 16 ? kWidth : kPackWidth<C>;
#pragma unroll
  for (int i = 0; i < kWidth; i += kAtOnce) {
    const Pack<C, kAtOnce> some = load_pack<kAtOnce>(from + i);
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) to[i + j] = some[j];
  }
}

// Whether maps with so many channels, and coefficients, can be read and written in packs of 16 bytes.
template <typename T, typename... Pointers>
bool fits_packs(int64_t channels, const Pointers*... pointers) {
  return channels % kPackWidth<T> == 0 && ((reinterpret_cast<uintptr_t>(pointers) | ...) % 16) == 0;
}

// The first `count` of four channels of a map; the others are 0.
template <typename T>
__device__ Pack<Compute<T>, 4> load_channels(const T* from, int count, bool aligned) {
  Pack<Compute<T>, 4> channels;
  if (aligned && count == 4) {
    const Pack<T, 4> pack = *reinterpret_cast<const Pack<T, 4>*>(from);
#pragma unroll
    for (int i = 0; i < 4; ++i) channels[i] = widen(pack[i]);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) channels[i] = i < count ? widen(from[i]) : Compute<T>(0);
  }
  return channels;
}

// Stores the first `count` of four channels.
template <typename T>
__device__ void store_channels(const Pack<Compute<T>, 4>& channels, int count, bool aligned, T* to) {
  Pack<T, 4> pack;
#pragma unroll
  for (int i = 0; i < 4; ++i) narrow(channels[i], pack[i]);
  if (aligned && count == 4) {
    *reinterpret_cast<Pack<T, 4>*>(to) = pack;
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i < count) to[i] = pack[i];
    }
  }
}

}  // namespace sa_layers::cuda
