// How the threads of operators that pool share out the result: a thread has a strip of the channels of some pixels of a
// row. Neighbouring threads have the next channels, then the next pixel.
#pragma once

#include "cuda/launch.h"
#include "cuda/pooling.h"
#include "cuda/strip.cuh"
#include "cuda/thread_index.cuh"

namespace sa_layers::cuda {

struct PoolingThreads {
  int strips;   // of a pixel's channels
  int columns;  // of the result
  int step;     // from a thread's pixel to its next: as many pixels of a row as there are threads for a strip

  int64_t of_row() const { return int64_t(strips) * step; }
};

// At most `most` pixels for a thread, fewer where there would be too few threads.
inline PoolingThreads share_pooling(const Pooling& problem, int width, int most) {
  PoolingThreads threads{int(problem.channels / width), int(problem.width / 2), 0};
  const int64_t of_columns = problem.rows() * threads.strips, wanted = (kEnoughThreads + of_columns - 1) / of_columns;
  threads.step = (threads.columns + most - 1) / most;
  if (wanted > threads.step) threads.step = wanted < threads.columns ? int(wanted) : threads.columns;
  return threads;
}

struct PoolingPlace {
  int64_t row;          // of all images
  int column, channel;  // the first ones
};

template <int kWidth>
__device__ PoolingPlace find_place(const PoolingThreads& threads) {
  const int in_row = threads.strips * threads.step;
  const int64_t index = thread_index(), row = index / in_row;
  const int place = int(index - row * in_row);
  return {row, place / threads.strips, place % threads.strips * kWidth};
}

}  // namespace sa_layers::cuda
