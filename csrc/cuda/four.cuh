// Four numbers at a time: channels of a map that lie side by side, and numbers of shared memory.
#pragma once

#include "cuda/element.cuh"

namespace sa_layers::cuda {

// Four numbers of shared memory, which has the alignment of one instruction.
template <typename C>
struct alignas(16) Four {
  C of[4];
};

template <typename C>
__device__ Four<C> load_four(const C* from) {
  return *reinterpret_cast<const Four<C>*>(from);
}

template <typename C>
__device__ void store_four(const Four<C>& numbers, C* to) {
  *reinterpret_cast<Four<C>*>(to) = numbers;
}

// `count` of four channels of a map, the others 0.
template <typename T>
__device__ Four<Compute<T>> load_channels(const T* from, int count, bool aligned) {
  Four<Compute<T>> channels;
  if (aligned && count == 4) {
    const Quad<T> quad = *reinterpret_cast<const Quad<T>*>(from);
#pragma unroll
    for (int i = 0; i < 4; ++i) channels.of[i] = widen(quad.elements[i]);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) channels.of[i] = i < count ? widen(from[i]) : Compute<T>(0);
  }
  return channels;
}

// The same back.
template <typename T>
__device__ void store_channels(const Four<Compute<T>>& channels, int count, bool aligned, T* to) {
  Quad<T> quad;
#pragma unroll
  for (int i = 0; i < 4; ++i) narrow(channels.of[i], quad.elements[i]);
  if (aligned && count == 4) {
    *reinterpret_cast<Quad<T>*>(to) = quad;
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i < count) to[i] = quad.elements[i];
    }
  }
}

__device__ inline int least(int a, int b) { return a < b ? a : b; }

// A NaN stays one, as in torch's ReLU.
template <typename C>
__device__ C relu(C number) {
  return number < 0 ? C(0) : number;
}

}  // namespace sa_layers::cuda
