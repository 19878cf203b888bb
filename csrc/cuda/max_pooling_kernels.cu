// The maximum of every 2x2 pixels, channels last, an odd last row or column dropped. With a norm and a ReLU before, the
// ReLU and the rounding come last: neither changes which number is the greatest.

#include "cuda/pooling.cuh"

namespace sa_layers::cuda {

template <typename T, int kWidth, bool kNormed>
__global__ void max_pooling_strips(Pooling problem, PoolingThreads threads, const T* __restrict__ features,
                                   const Compute<T>* __restrict__ scale, const Compute<T>* __restrict__ shift,
                                   T* __restrict__ result) {
  const PoolingPlace place = find_place<kWidth>(threads);
  const int64_t height = problem.height / 2;
  if (place.row >= problem.batch * height) return;
  const int64_t row_step = problem.width * problem.channels, odd = problem.height % 2;
  const T* const from = features + (2 * place.row + place.row / height * odd) * row_step + place.channel;
  T* const to = result + place.row * threads.columns * problem.channels + place.channel;
  Compute<T> scales[kWidth], shifts[kWidth];
  if constexpr (kNormed) {
    load_coefficients(scale + place.channel, scales);
    load_coefficients(shift + place.channel, shifts);
  }
  for (int column = place.column; column < threads.columns; column += threads.step) {
    const T* const corner = from + 2 * column * problem.channels;
    const Strip<T, kWidth> strips[4] = {load_strip<kWidth>(corner), load_strip<kWidth>(corner + problem.channels),
                                        load_strip<kWidth>(corner + row_step),
                                        load_strip<kWidth>(corner + row_step + problem.channels)};
    Strip<T, kWidth> greatest;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      Compute<T> numbers[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        numbers[j] = widen(strips[j].elements[i]);
        if constexpr (kNormed) numbers[j] = scales[i] * numbers[j] + shifts[i];
      }
      const Compute<T> most = greater(greater(numbers[0], numbers[1]), greater(numbers[2], numbers[3]));
      narrow(kNormed ? greater(most, Compute<T>(0)) : most, greatest.elements[i]);
    }
    store_strip(greatest, to + column * problem.channels);
  }
}

cudaError_t launch_max_pooling(const Pooling& problem, Element element, const void* features, const void* scale,
                               const void* shift, void* result, cudaStream_t stream) {
  constexpr int kPixelsOfAThread = 2;
  if (problem.rows() * (problem.width / 2) * problem.channels == 0) return cudaSuccess;
  return dispatch(element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    const auto launch_strips = [&](auto* kernel, int width) {
      const PoolingThreads threads = share_pooling(problem, width, kPixelsOfAThread);
      return launch_threads(kernel, problem.rows() * threads.of_row(), stream, problem, threads,
                            static_cast<const T*>(features), static_cast<const Compute<T>*>(scale),
                            static_cast<const Compute<T>*>(shift), static_cast<T*>(result));
    };
    constexpr int kWidth = kStripWidth<T>;
    if (fits_strips<T>(problem.channels, features, scale, shift, result)) {
      return launch_strips(scale ? &max_pooling_strips<T, kWidth, true> : &max_pooling_strips<T, kWidth, false>,
                           kWidth);
    }
    return launch_strips(scale ? &max_pooling_strips<T, 1, true> : &max_pooling_strips<T, 1, false>, 1);
  });
}

}  // namespace sa_layers::cuda
