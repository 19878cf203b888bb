// relu(scale * features + shift), channel by channel, in one pass at memory bandwidth.

#include <cstdint>
#include <type_traits>

#include "cuda/common/element.cuh"
#include "cuda/common/launch.cuh"
#include "cuda/common/pack.cuh"
#include "cuda/linear/launch.h"
#include "footprint.h"

namespace sa_layers::cuda {

constexpr int kPacksPerThread = 4;  // loaded before the first is stored, to keep memory busy

// A thread processes the same channels of several pixels, `step` packs apart, and so reads coefficients once. Maps are
// not __restrict__, since the operator may run in place.
template <typename T, int kWidth>
__global__ void affine_relu_packs(int64_t packs, int64_t step, int64_t packs_per_pixel, const T* features,
                                  const Compute<T>* __restrict__ scale, const Compute<T>* __restrict__ shift,
                                  T* result) {
  const int64_t first = thread_index();
  if (first >= step) return;
  Compute<T> scales[kWidth], shifts[kWidth];
  const int64_t channel = first % packs_per_pixel * kWidth;
  load_coefficients(scale + channel, scales);
  load_coefficients(shift + channel, shifts);
  Pack<T, kWidth> maps[kPacksPerThread];
#pragma unroll
  for (int i = 0; i < kPacksPerThread; ++i) {
    const int64_t pack = first + i * step;  // clamped, since a condition would delay the other loads
    maps[i] = load_pack<kWidth>(features + (pack < packs ? pack : first) * kWidth);
  }
#pragma unroll
  for (int i = 0; i < kPacksPerThread; ++i) {
    if (first + i * step >= packs) return;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      narrow(max_nan(scales[j] * widen(maps[i][j]) + shifts[j], Compute<T>(0)), maps[i][j]);
    }
    store_pack(maps[i], result + (first + i * step) * kWidth);
  }
}

cudaError_t launch_affine_relu(int64_t pixels, int64_t channels, Element element, const void* features,
                               const void* scale, const void* shift, void* result, cudaStream_t stream) {
  if (pixels * channels == 0) return cudaSuccess;
  return dispatch(element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    const auto launch_packs = [&](auto* kernel, int width) {
      const int64_t packs_per_pixel = channels / width, fewest = ceil_div<int64_t>(pixels, kPacksPerThread);
      const int64_t wanted = kEnoughThreads / packs_per_pixel, most = min(wanted, pixels);
      const int64_t step = max(fewest, most) * packs_per_pixel;
      return launch_threads(kernel, step, stream, pixels * packs_per_pixel, step, packs_per_pixel,
                            static_cast<const T*>(features), static_cast<const Compute<T>*>(scale),
                            static_cast<const Compute<T>*>(shift), static_cast<T*>(result));
    };
    if (fits_packs<T>(channels, features, scale, shift, result)) {
      return launch_packs(&affine_relu_packs<T, kPackWidth<T>>, kPackWidth<T>);
    }
    return launch_packs(&affine_relu_packs<T, 1>, 1);
  });
}

}  // namespace sa_layers::cuda
