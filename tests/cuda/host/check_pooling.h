// Max-pooling and the pooled projection against their equations.
#pragma once

#include "buffer.h"
#include "cuda/linear/launch.h"

namespace sa_layers::cuda {

// One pixel of the first image is NaN in its first channel; after a projection all its channels are.
template <typename T>
bool check_results(const char* name, Buffer<T>& result, Expected& expected, int64_t first, int64_t count) {
  for (int64_t i = first; i < first + count; ++i) {
    if (!std::isnan(double(widen(result.data()[i])))) {
      std::printf("%s: element %ld is a number\n", name, long(i));
      return false;
    }
    expected.sum[i] = 0, narrow(Compute<T>(0), result.data()[i]);
  }
  return agrees(name, result, expected);
}

// The index of a pixel's result.
inline int64_t pooled(const Pooling& p, int64_t image, int64_t row, int64_t column, int64_t channel) {
  return ((image * (p.height / 2) + row / 2) * (p.width / 2) + column / 2) * p.channels + channel;
}

// Calls body(image, row, column) for every pixel that is pooled.
template <typename Body>
void for_each_pixel(const Pooling& p, const Body& body) {
  for (int64_t image = 0; image < p.batch; ++image) {
    for (int64_t row = 0; row < p.height / 2 * 2; ++row) {
      for (int64_t column = 0; column < p.width / 2 * 2; ++column) body(image, row, column);
    }
  }
}

// Max pooling, with or without a norm and a ReLU before it.
template <typename T>
bool check_max_pooling(const Pooling& p, Element element, int shift, bool normed) {
  Buffer<Compute<T>> scale(p.channels, shift), offset(p.channels, shift);
  scale.randomise(), offset.randomise();
  Buffer<T> features(p.batch * p.height * p.width * p.channels, shift);
  Buffer<T> result(p.rows() * (p.width / 2) * p.channels, shift);
  features.randomise(), result.forget();
  Expected expected(result.size());
  for (double& sum : expected.sum) sum = -INFINITY;
  for_each_pixel(p, [&](int64_t image, int64_t row, int64_t column) {
    for (int64_t c = 0; c < p.channels; ++c) {
      const int64_t from = ((image * p.height + row) * p.width + column) * p.channels + c;
      double& maximum = expected.sum[pooled(p, image, row, column, c)];
      const double number = widen(features.data()[from]);
      maximum = std::fmax(maximum, normed ? scale.data()[c] * number + offset.data()[c] : number);
      if (normed) maximum = std::fmax(maximum, 0), expected.magnitude[pooled(p, image, row, column, c)] = 2;
    }
  });
  const int64_t odd = pick(0, 1) * p.width + pick(0, 1);
  narrow(std::numeric_limits<Compute<T>>::quiet_NaN(), features.data()[odd * p.channels]);
  return !launch_max_pooling(p, element, features.data(), normed ? scale.data() : nullptr,
                             normed ? offset.data() : nullptr, result.data(), nullptr) &&
         check_results("max_pooling", result, expected, 0, result.size() ? 1 : 0);
}

template <typename T>
bool check_pooled_projection(const Pooling& p, int64_t inputs, bool channels_last, Element element, int shift) {
  const int64_t size = p.height * p.width;
  Buffer<T> image(p.batch * inputs * size, shift), result(p.rows() * (p.width / 2) * p.channels, shift);
  Buffer<Compute<T>> weight(inputs * p.channels, shift), offset(p.channels, shift);
  image.randomise(), weight.randomise(), offset.randomise(), result.forget();
  const ImageSteps steps = channels_last ? ImageSteps{inputs * size, 1, p.width * inputs, inputs}
                                         : ImageSteps{inputs * size, size, p.width, 1};
  Expected expected(result.size());
  for_each_pixel(p, [&](int64_t n, int64_t row, int64_t column) {
    for (int64_t c = 0; c < p.channels; ++c) {
      double sum = offset.data()[c];
      for (int64_t k = 0; k < inputs; ++k) {
        const int64_t from = n * steps.image + row * steps.row + column * steps.column + k * steps.channel;
        sum += double(weight.data()[k * p.channels + c]) * widen(image.data()[from]);
      }
      double& maximum = expected.sum[pooled(p, n, row, column, c)];
      maximum = std::fmax(maximum, sum), expected.magnitude[pooled(p, n, row, column, c)] = double(inputs + 1);
    }
  });
  const int64_t odd = pick(0, 1) * steps.row + pick(0, 1) * steps.column + pick(0, int(inputs) - 1) * steps.channel;
  narrow(std::numeric_limits<Compute<T>>::quiet_NaN(), image.data()[odd]);
  return !launch_pooled_projection(p, inputs, steps, element, image.data(), weight.data(), offset.data(), result.data(),
                                   nullptr) &&
         check_results("pooled_projection", result, expected, 0, result.size() ? p.channels : 0);
}

}  // namespace sa_layers::cuda
