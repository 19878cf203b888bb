// relu(scale * features + shift), channel by channel: one pass, as fast as memory.

#include "cuda/affine_relu.h"
#include "cuda/launch.h"
#include "cuda/strip.cuh"
#include "cuda/thread_index.cuh"

namespace sa_layers::cuda {

constexpr int kStripsOfAThread = 4;  // loaded before the first is stored: bytes in flight keep memory busy

// A thread has the same channels of several pixels, `step` strips apart, and so reads coefficients once. There is no
// __restrict__ on maps, which may be the same.
template <typename T, int kWidth>
__global__ void affine_relu_strips(int64_t strips, int64_t step, int64_t strips_of_pixel, const T* features,
                                   const Compute<T>* __restrict__ scale, const Compute<T>* __restrict__ shift,
                                   T* result) {
  const int64_t first = thread_index();
  if (first >= step) return;
  Compute<T> scales[kWidth], shifts[kWidth];
  const int64_t channel = first % strips_of_pixel * kWidth;
  load_coefficients(scale + channel, scales);
  load_coefficients(shift + channel, shifts);
  Strip<T, kWidth> maps[kStripsOfAThread];
#pragma unroll
  for (int i = 0; i < kStripsOfAThread; ++i) {
    const int64_t strip = first + i * step;  // beyond the last one any will do: a condition would hold up the others
    maps[i] = load_strip<kWidth>(features + (strip < strips ? strip : first) * kWidth);
  }
#pragma unroll
  for (int i = 0; i < kStripsOfAThread; ++i) {
    if (first + i * step >= strips) return;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      narrow(greater(scales[j] * widen(maps[i].elements[j]) + shifts[j], Compute<T>(0)), maps[i].elements[j]);
    }
    store_strip(maps[i], result + (first + i * step) * kWidth);
  }
}

cudaError_t launch_affine_relu(int64_t pixels, int64_t channels, Element element, const void* features,
                               const void* scale, const void* shift, void* result, cudaStream_t stream) {
  if (pixels * channels == 0) return cudaSuccess;
  return dispatch(element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    const auto launch_strips = [&](auto* kernel, int width) {
      const int64_t strips_of_pixel = channels / width, least = (pixels + kStripsOfAThread - 1) / kStripsOfAThread;
      const int64_t wanted = kEnoughThreads / strips_of_pixel, most = wanted < pixels ? wanted : pixels;
      const int64_t step = (least > most ? least : most) * strips_of_pixel;
      return launch_threads(kernel, step, stream, pixels * strips_of_pixel, step, strips_of_pixel,
                            static_cast<const T*>(features), static_cast<const Compute<T>*>(scale),
                            static_cast<const Compute<T>*>(shift), static_cast<T*>(result));
    };
    if (fits_strips<T>(channels, features, scale, shift, result)) {
      return launch_strips(&affine_relu_strips<T, kStripWidth<T>>, kStripWidth<T>);
    }
    return launch_strips(&affine_relu_strips<T, 1>, 1);
  });
}

}  // namespace sa_layers::cuda
