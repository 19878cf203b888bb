// Mean and covariance of an image's channels.
#if defined(SA_LAYERS_CPU_NORM_TRAINING_IMAGE_MOMENTS_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_NORM_TRAINING_IMAGE_MOMENTS_H
#undef SA_LAYERS_CPU_NORM_TRAINING_IMAGE_MOMENTS_H
#else
#define SA_LAYERS_CPU_NORM_TRAINING_IMAGE_MOMENTS_H
#endif

#include "cpu/norm_training/stem.h"
#include "cpu/simd/vector.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

constexpr int64_t kMomentPixels = 512;  // whose deviations stay in the first-level cache

template <typename T>
ALWAYS_INLINE Compute<T> sum_of_lanes(Vector<T> vector) {
  alignas(64) Compute<T> sums[kLanes<T>];
  store(sums, vector);
#pragma GCC unroll 4
  for (int64_t half = kLanes<T> / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) sums[i] += sums[i + half];
  }
  return sums[0];
}

// The moments of at most kMomentPixels pixels, `plane` apart, from their deviations from a center: the mean of the
// pixels before, which is as good as their own; see channel_statistics_run(). deviations holds kMomentPixels numbers a
// channel.
template <typename T>
inline void run_moments(const T* first, int64_t plane, int64_t channels, int64_t count, const double* center,
                        Compute<T>* deviations, ImageMoments& moments) {
  using C = Compute<T>;
  double sums[kMaxImageChannels];
  moments.count = static_cast<double>(count);
  for (int64_t j = 0; j < channels; ++j) {
    const C origin = static_cast<C>(center[j]);
    C* to = deviations + j * kMomentPixels;
    Vector<T> sum{};
    convert_run(first + j * plane, to, count);
    for (int64_t i = count; i < round_up(count, kLanes<T>); ++i) to[i] = origin;  // no deviation
    for (int64_t i = 0; i < count; i += kLanes<T>) {
      const Vector<T> deviation = load(to + i) - origin;
      store(to + i, deviation);
      sum += deviation;
    }
    sums[j] = sum_of_lanes<T>(sum);
    moments.mean[j] = origin + sums[j] / moments.count;
  }
  for (int64_t j = 0; j < channels; ++j) {
    for (int64_t k = j; k < channels; ++k) {
      const C *one = deviations + j * kMomentPixels, *two = deviations + k * kMomentPixels;
      Vector<T> product{};
      for (int64_t i = 0; i < count; i += kLanes<T>) product += load(one + i) * load(two + i);
      moments.products[j][k] = sum_of_lanes<T>(product) - sums[j] * sums[k] / moments.count;
    }
  }
}

// The pixels first <= pixel < last of one image.
template <typename T>
void image_moments(const Planes<T>& planes, int64_t image, int64_t first, int64_t last, ImageMoments* moments) {
  const Scratch<Compute<T>> deviations(planes.channels * kMomentPixels);
  const T* from = planes.data + image * planes.channels * planes.pixels;
  const auto add = [&](int64_t pixel, int64_t end, const double* center, ImageMoments& to) {
    ImageMoments run;
    run_moments(from + pixel, planes.pixels, planes.channels, end - pixel, center, deviations.data(), run);
    to.merge(run, planes.channels);
  };
  ImageMoments start;
  const double zeros[kMaxImageChannels] = {};
  add(first, min(last, first + kMomentPixels), zeros, start);
  for (int64_t pixel = first; pixel < last; pixel += kMomentPixels) {
    add(pixel, min(last, pixel + kMomentPixels), pixel == first ? start.mean : moments->mean, *moments);
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_NORM_TRAINING_IMAGE_MOMENTS_H
