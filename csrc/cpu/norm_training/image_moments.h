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

constexpr int64_t kMomentPixels = 256;  // whose deviations from their own mean stay in the first-level cache

template <typename T>
ALWAYS_INLINE double sum_of_lanes(Vector<T> vector) {
  double sum = 0;
  for (int lane = 0; lane < kLanes<T>; ++lane) sum += vector[lane];
  return sum;
}

// Calls body(pixel, lanes) for all vectors of a run.
template <typename T, typename Body>
ALWAYS_INLINE void for_each_pixel_vector(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>) body(i, AllLanes{});
  if (i < count) body(i, SomeLanes{0, count - i});
}

// The moments of at most kMomentPixels pixels, `planes` apart. deviations holds kMomentPixels numbers a channel.
template <typename T>
inline void run_moments(const T* first, int64_t plane, int64_t channels, int64_t count, Compute<T>* deviations,
                        ImageMoments& moments) {
  using C = Compute<T>;
  double sums[kMaxImageChannels];
  moments.count = static_cast<double>(count);
  for (int64_t j = 0; j < channels; ++j) {
    const T* from = first + j * plane;
    C* to = deviations + j * kMomentPixels;
    Vector<T> total{}, rest{};
    for_each_pixel_vector<T>(count,
                             [&](int64_t i, auto lanes) ALWAYS_INLINE_LAMBDA { total += load(from + i, lanes); });
    const C center = static_cast<C>(sum_of_lanes<T>(total) / moments.count);
    for_each_pixel_vector<T>(count, [&](int64_t i, auto lanes) ALWAYS_INLINE_LAMBDA {
      const Vector<T> deviation = load(from + i, lanes) - center;
      store(to + i, deviation, AllLanes{});
    });
    for (int64_t i = count; i < round_up(count, kLanes<T>); ++i) to[i] = 0;
    for (int64_t i = 0; i < count; i += kLanes<T>) rest += load(to + i);
    sums[j] = sum_of_lanes<T>(rest);
    moments.mean[j] = center + sums[j] / moments.count;
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
  for (int64_t pixel = first; pixel < last; pixel += kMomentPixels) {
    ImageMoments run;
    run_moments(from + pixel, planes.pixels, planes.channels, min(kMomentPixels, last - pixel), deviations.data(), run);
    moments->merge(run, planes.channels);
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_NORM_TRAINING_IMAGE_MOMENTS_H
