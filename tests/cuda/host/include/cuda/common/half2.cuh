// Replaces csrc/cuda/common/half2.cuh.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cuda/common/element.cuh"

namespace sa_layers::cuda {

namespace emulation_of_pairs {

template <typename T>
float element(uint32_t word, int i) {
  const uint16_t bits = uint16_t(word >> 16 * i);
  T half;
  std::memcpy(&half, &bits, 2);
  return widen(half);
}

template <typename T>
float clamp(double number) {
  if (number < 0) return 0;
  return float(std::is_same_v<T, __half> && number > 65504 ? 65504 : number);
}

template <typename T>
double multiply_add(uint32_t a, uint32_t b, uint32_t c, int i) {
  return double(element<T>(a, i)) * double(element<T>(b, i)) + double(element<T>(c, i));
}

}  // namespace emulation_of_pairs

template <typename T>
uint32_t pack(float first, float second) {
  T halves[2];
  narrow(first, halves[0]), narrow(second, halves[1]);
  uint32_t word;
  std::memcpy(&word, halves, 4);
  return word;
}

template <typename T>
uint32_t pack_relu(float first, float second) {
  return pack<T>(emulation_of_pairs::clamp<T>(first), emulation_of_pairs::clamp<T>(second));
}

template <typename T>
uint32_t pack_finite(float first, float second) {
  if (std::is_same_v<T, __half>) {
    first = first > 65504 ? 65504 : first < -65504 ? -65504 : first;
    second = second > 65504 ? 65504 : second < -65504 ? -65504 : second;
  }
  return pack<T>(first, second);
}

template <typename T>
uint32_t packed_multiply_add(uint32_t a, uint32_t b, uint32_t c) {
  using namespace emulation_of_pairs;
  return pack<T>(multiply_add<T>(a, b, c, 0), multiply_add<T>(a, b, c, 1));
}
template <typename T>
uint32_t packed_multiply_add_relu(uint32_t a, uint32_t b, uint32_t c) {
  using namespace emulation_of_pairs;
  return pack<T>(clamp<T>(multiply_add<T>(a, b, c, 0)), clamp<T>(multiply_add<T>(a, b, c, 1)));
}

inline float power_of_two(float exponent) { return std::exp2(exponent); }
inline float reciprocal(float number) { return 1 / number; }

}  // namespace sa_layers::cuda
