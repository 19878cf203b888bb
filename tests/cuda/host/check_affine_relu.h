// The norm with a ReLU, into a new map and in place, against its equation.
#pragma once

#include "buffer.h"
#include "cuda/linear/launch.h"

namespace sa_layers::cuda {

// One channel of one pixel is NaN, and must stay NaN.
template <typename T>
bool check_affine_relu(int64_t pixels, int64_t channels, Element element, int shift) {
  Buffer<T> features(pixels * channels, shift), result(pixels * channels, shift);
  Buffer<Compute<T>> scale(channels, shift), offset(channels, shift);
  features.randomise(), scale.randomise(), offset.randomise(), result.forget();
  const int64_t odd = pick(0, int(pixels * channels) - 1);
  Expected expected(pixels * channels);
  for (int64_t i = 0; i < features.size(); ++i) {
    const double sum = double(scale.data()[i % channels]) * widen(features.data()[i]) + offset.data()[i % channels];
    expected.sum[i] = sum > 0 ? sum : 0, expected.magnitude[i] = 2;
  }
  narrow(std::numeric_limits<Compute<T>>::quiet_NaN(), features.data()[odd]);
  for (T* const to : {result.data(), features.data()}) {
    if (launch_affine_relu(pixels, channels, element, features.data(), scale.data(), offset.data(), to, nullptr)) {
      return false;
    }
  }
  for (Buffer<T>* map : {&result, &features}) {
    if (!std::isnan(double(widen(map->data()[odd])))) return false;
    narrow(Compute<T>(expected.sum[odd]), map->data()[odd]);
    if (!agrees("affine_relu", *map, expected)) return false;
  }
  return true;
}

}  // namespace sa_layers::cuda
