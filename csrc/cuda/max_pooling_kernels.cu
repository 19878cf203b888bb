// The maximum of every 2x2 pixels, channels last, an odd last row or column dropped.

#include "cuda/pooling.cuh"

namespace sa_layers::cuda {

template <typename T, int kWidth>
__global__ void max_pooling_strips(Pooling problem, PoolingThreads threads, const T* __restrict__ features,
                                   T* __restrict__ result) {
  const PoolingPlace place = find_place<kWidth>(threads);
  const int64_t height = problem.height / 2;
  if (place.row >= problem.batch * height) return;
  const int64_t row_step = problem.width * problem.channels, odd = problem.height % 2;
  const T* const from = features + (2 * place.row + place.row / height * odd) * row_step + place.channel;
  T* const to = result + place.row * threads.columns * problem.channels + place.channel;
  for (int column = place.column; column < threads.columns; column += threads.step) {
    const T* const corner = from + 2 * column * problem.channels;
    const Strip<T, kWidth> strips[4] = {load_strip<kWidth>(corner), load_strip<kWidth>(corner + problem.channels),
                                        load_strip<kWidth>(corner + row_step),
                                        load_strip<kWidth>(corner + row_step + problem.channels)};
    Strip<T, kWidth> greatest;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const auto upper = greater(widen(strips[0].elements[i]), widen(strips[1].elements[i]));
      const auto lower = greater(widen(strips[2].elements[i]), widen(strips[3].elements[i]));
      narrow(greater(upper, lower), greatest.elements[i]);
    }
    store_strip(greatest, to + column * problem.channels);
  }
}

cudaError_t launch_max_pooling(const Pooling& problem, Element element, const void* features, void* result,
                               cudaStream_t stream) {
  constexpr int kPixelsOfAThread = 2;
  if (problem.rows() * (problem.width / 2) * problem.channels == 0) return cudaSuccess;
  return dispatch(element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    const auto launch_strips = [&](auto* kernel, int width) {
      const PoolingThreads threads = share_pooling(problem, width, kPixelsOfAThread);
      return launch_threads(kernel, problem.rows() * threads.of_row(), stream, problem, threads,
                            static_cast<const T*>(features), static_cast<T*>(result));
    };
    if (fits_strips<T>(problem.channels, features, result)) {
      return launch_strips(&max_pooling_strips<T, kStripWidth<T>>, kStripWidth<T>);
    }
    return launch_strips(&max_pooling_strips<T, 1>, 1);
  });
}

}  // namespace sa_layers::cuda
