// A stem: the linear layer of an image's few channels, the maximum of every 2x2 pixels and a ReLU. The shift is alike
// for all four pixels, so sums begin with it.

#include "cuda/pooling.cuh"

namespace sa_layers::cuda {

// Where kInputs, the image's channels, are known, a thread keeps its weights in registers. Neighbouring threads read
// the same pixels, which the cache hands to all of them at once. Where kPairs, pixels side by side are loaded as one
// strip.
template <typename T, int kWidth, int kInputs, bool kPairs>
__global__ void pooled_projection_strips(Pooling problem, PoolingThreads threads, int inputs, ImageSteps steps,
                                         const T* __restrict__ image, const Compute<T>* __restrict__ weight,
                                         const Compute<T>* __restrict__ shift, T* __restrict__ result) {
  using C = Compute<T>;
  constexpr int kHeld = kInputs ? kInputs : 1;
  const PoolingPlace place = find_place<kWidth>(threads);
  const int64_t height = problem.height / 2, index = place.row / height;
  if (index >= problem.batch) return;
  const T* const from = image + index * steps.image + (place.row - index * height) * 2 * steps.row;
  T* const to = result + place.row * threads.columns * problem.channels + place.channel;
  C shifts[kWidth], weights[kHeld][kWidth];
  load_coefficients(shift + place.channel, shifts);
#pragma unroll
  for (int k = 0; k < kInputs; ++k) load_coefficients(weight + k * problem.channels + place.channel, weights[k]);
  for (int column = place.column; column < threads.columns; column += threads.step) {
    C sums[4][kWidth];
#pragma unroll
    for (int i = 0; i < 4 * kWidth; ++i) sums[i / kWidth][i % kWidth] = shifts[i % kWidth];
    const T* corner = from + 2 * column * (kPairs ? 1 : steps.column);
#pragma unroll
    for (int k = 0; k < (kInputs ? kInputs : inputs); ++k, corner += steps.channel) {
      if (!kInputs) load_coefficients(weight + k * problem.channels + place.channel, weights[0]);
      C pixels[4];
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const T* const first = corner + row * steps.row;
        if constexpr (kPairs) {
          const Strip<T, 2> pair = load_strip<2>(first);
          pixels[2 * row] = widen(pair.elements[0]), pixels[2 * row + 1] = widen(pair.elements[1]);
        } else {
          pixels[2 * row] = widen(first[0]), pixels[2 * row + 1] = widen(first[steps.column]);
        }
      }
#pragma unroll
      for (int i = 0; i < 4 * kWidth; ++i) {
        sums[i / kWidth][i % kWidth] += pixels[i / kWidth] * weights[kInputs ? k : 0][i % kWidth];
      }
    }
    Strip<T, kWidth> strip;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const C greatest = greater(greater(sums[0][i], sums[1][i]), greater(sums[2][i], sums[3][i]));
      narrow(greater(greatest, C(0)), strip.elements[i]);
    }
    store_strip(strip, to + column * problem.channels);
  }
}

cudaError_t launch_pooled_projection(const Pooling& problem, int64_t inputs, const ImageSteps& steps, Element element,
                                     const void* image, const void* weight, const void* shift, void* result,
                                     cudaStream_t stream) {
  constexpr int kPixelsOfAThread = 8;
  if (problem.rows() * (problem.width / 2) * problem.channels == 0) return cudaSuccess;
  return dispatch(element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    const auto launch_strips = [&](auto* kernel, int width) {
      const PoolingThreads threads = share_pooling(problem, width, kPixelsOfAThread);
      return launch_threads(kernel, problem.rows() * threads.of_row(), stream, problem, threads, int(inputs), steps,
                            static_cast<const T*>(image), static_cast<const Compute<T>*>(weight),
                            static_cast<const Compute<T>*>(shift), static_cast<T*>(result));
    };
    constexpr int kWidth = kStripWidth<T>;
    if (!fits_strips<T>(problem.channels, weight, shift, result)) {
      return launch_strips(&pooled_projection_strips<T, 1, 0, false>, 1);
    }
    if (inputs != 3) return launch_strips(&pooled_projection_strips<T, kWidth, 0, false>, kWidth);
    const bool pairs = steps.column == 1 && (steps.image | steps.channel | steps.row) % 2 == 0 &&
                       reinterpret_cast<uintptr_t>(image) % (2 * sizeof(T)) == 0;
    if (pairs) return launch_strips(&pooled_projection_strips<T, kWidth, 3, true>, kWidth);
    return launch_strips(&pooled_projection_strips<T, kWidth, 3, false>, kWidth);
  });
}

}  // namespace sa_layers::cuda
