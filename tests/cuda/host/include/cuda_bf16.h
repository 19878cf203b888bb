// bfloat16 for the host emulation: the upper half of a float32, rounded to nearest even.
#pragma once

#include <cstdint>
#include <cstring>

struct __nv_bfloat16 {
  uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 half) {
  const uint32_t bits = uint32_t(half.bits) << 16;
  float number;
  std::memcpy(&number, &bits, sizeof number);
  return number;
}

inline __nv_bfloat16 __float2bfloat16_rn(float number) {
  uint32_t bits;
  std::memcpy(&bits, &number, sizeof bits);
  if (number != number) return {0x7fff};
  return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
