// The maximum of every 2x2 pixels: of a channels-last map, with a frozen norm and a ReLU before it if there is one, and
// of a linear layer of an image (the stem). An odd last row or column is dropped.

#include <cstdint>
#include <type_traits>

#include "cuda/common/element.cuh"
#include "cuda/common/launch.cuh"
#include "cuda/common/pack.cuh"
#include "cuda/linear/launch.h"
#include "footprint.h"

namespace sa_layers::cuda {

struct PoolingThreads {
  int packs;    // of a pixel's channels
  int columns;  // of the result
  int step;     // from a thread's pixel to its next: the threads per row and pack

  int64_t of_row() const { return int64_t(packs) * step; }
};

// At most `most` pixels per thread, fewer if there would be too few threads.
inline PoolingThreads share_pooling(const Pooling& problem, int width, int most) {
  PoolingThreads threads{int(problem.channels / width), int(problem.width / 2), 0};
  const int64_t of_columns = problem.rows() * threads.packs, wanted = ceil_div(kEnoughThreads, of_columns);
  threads.step = ceil_div(threads.columns, most);
  if (wanted > threads.step) threads.step = wanted < threads.columns ? int(wanted) : threads.columns;
  return threads;
}

struct PoolingPosition {
  int64_t row;          // of all images
  int column, channel;  // the first ones
};

template <int kWidth>
__device__ PoolingPosition locate_thread(const PoolingThreads& threads) {
  const int in_row = threads.packs * threads.step;
  const int64_t index = thread_index(), row = index / in_row;
  const int place = int(index - row * in_row);
  return {row, place / threads.packs, place % threads.packs * kWidth};
}

template <typename T, int kWidth, bool kNormed>
__global__ void max_pooling_packs(Pooling problem, PoolingThreads threads, const T* __restrict__ features,
                                  const Compute<T>* __restrict__ scale, const Compute<T>* __restrict__ shift,
                                  T* __restrict__ result) {
  const PoolingPosition place = locate_thread<kWidth>(threads);
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
    const Pack<T, kWidth> packs[4] = {load_pack<kWidth>(corner), load_pack<kWidth>(corner + problem.channels),
                                      load_pack<kWidth>(corner + row_step),
                                      load_pack<kWidth>(corner + row_step + problem.channels)};
    Pack<T, kWidth> maximum;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      Compute<T> numbers[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        numbers[j] = widen(packs[j][i]);
        if constexpr (kNormed) numbers[j] = scales[i] * numbers[j] + shifts[i];
      }
      const Compute<T> most = max_nan(max_nan(numbers[0], numbers[1]), max_nan(numbers[2], numbers[3]));
      narrow(kNormed ? max_nan(most, Compute<T>(0)) : most, maximum[i]);
    }
    store_pack(maximum, to + column * problem.channels);
  }
}

cudaError_t launch_max_pooling(const Pooling& problem, Element element, const void* features, const void* scale,
                               const void* shift, void* result, cudaStream_t stream) {
  constexpr int kPixelsPerThread = 2;
  if (problem.rows() * (problem.width / 2) * problem.channels == 0) return cudaSuccess;
  return dispatch(element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    const auto launch_packs = [&](auto* kernel, int width) {
      const PoolingThreads threads = share_pooling(problem, width, kPixelsPerThread);
      return launch_threads(kernel, problem.rows() * threads.of_row(), stream, problem, threads,
                            static_cast<const T*>(features), static_cast<const Compute<T>*>(scale),
                            static_cast<const Compute<T>*>(shift), static_cast<T*>(result));
    };
    constexpr int kWidth = kPackWidth<T>;
    if (fits_packs<T>(problem.channels, features, scale, shift, result)) {
      return launch_packs(scale ? &max_pooling_packs<T, kWidth, true> : &max_pooling_packs<T, kWidth, false>, kWidth);
    }
    return launch_packs(scale ? &max_pooling_packs<T, 1, true> : &max_pooling_packs<T, 1, false>, 1);
  });
}

// If kInputs, the image's channels, is not 0, a thread keeps its weights in registers. Neighbouring threads read the
// same pixels, in one transaction. With kPairs, two neighbouring pixels are loaded as one pack.
template <typename T, int kWidth, int kInputs, bool kPairs>
__global__ void pooled_projection_packs(Pooling problem, PoolingThreads threads, int inputs, ImageSteps steps,
                                        const T* __restrict__ image, const Compute<T>* __restrict__ weight,
                                        const Compute<T>* __restrict__ shift, T* __restrict__ result) {
  using C = Compute<T>;
  constexpr int kHeld = kInputs ? kInputs : 1;
  const PoolingPosition place = locate_thread<kWidth>(threads);
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
          const Pack<T, 2> pair = load_pack<2>(first);
          pixels[2 * row] = widen(pair[0]), pixels[2 * row + 1] = widen(pair[1]);
        } else {
          pixels[2 * row] = widen(first[0]), pixels[2 * row + 1] = widen(first[steps.column]);
        }
      }
#pragma unroll
      for (int i = 0; i < 4 * kWidth; ++i) {
        sums[i / kWidth][i % kWidth] += pixels[i / kWidth] * weights[kInputs ? k : 0][i % kWidth];
      }
    }
    Pack<T, kWidth> pack;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const C maximum = max_nan(max_nan(sums[0][i], sums[1][i]), max_nan(sums[2][i], sums[3][i]));
      narrow(max_nan(maximum, C(0)), pack[i]);
    }
    store_pack(pack, to + column * problem.channels);
  }
}

cudaError_t launch_pooled_projection(const Pooling& problem, int64_t inputs, const ImageSteps& steps, Element element,
                                     const void* image, const void* weight, const void* shift, void* result,
                                     cudaStream_t stream) {
  constexpr int kPixelsPerThread = 8;
  if (problem.rows() * (problem.width / 2) * problem.channels == 0) return cudaSuccess;
  return dispatch(element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    const auto launch_packs = [&](auto* kernel, int width) {
      const PoolingThreads threads = share_pooling(problem, width, kPixelsPerThread);
      return launch_threads(kernel, problem.rows() * threads.of_row(), stream, problem, threads, int(inputs), steps,
                            static_cast<const T*>(image), static_cast<const Compute<T>*>(weight),
                            static_cast<const Compute<T>*>(shift), static_cast<T*>(result));
    };
    constexpr int kWidth = kPackWidth<T>;
    if (!fits_packs<T>(problem.channels, weight, shift, result)) {
      return launch_packs(&pooled_projection_packs<T, 1, 0, false>, 1);
    }
    if (inputs != 3) return launch_packs(&pooled_projection_packs<T, kWidth, 0, false>, kWidth);
    const bool pairs = steps.column == 1 && (steps.image | steps.channel | steps.row) % 2 == 0 &&
                       reinterpret_cast<uintptr_t>(image) % (2 * sizeof(T)) == 0;
    if (pairs) return launch_packs(&pooled_projection_packs<T, kWidth, 3, true>, kWidth);
    return launch_packs(&pooled_projection_packs<T, kWidth, 3, false>, kWidth);
  });
}

}  // namespace sa_layers::cuda
