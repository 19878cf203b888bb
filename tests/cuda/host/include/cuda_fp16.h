// float16 for the host emulation.
#pragma once

struct __half {
  _Float16 number;
};

inline float __half2float(__half half) { return float(half.number); }
inline __half __float2half_rn(float number) { return {_Float16(number)}; }
