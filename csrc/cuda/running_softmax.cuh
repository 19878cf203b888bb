// The softmax over taps of which a few are at hand at a time.
#pragma once

#include "cuda/four.cuh"

namespace sa_layers::cuda {

// Turns the logits of a round into weights relative to the greatest logit so far, of which there is a running total;
// `correction` is what takes everything before this round to that scale.
template <typename C>
__device__ void run_softmax(C* logits, int stride, int width, int pixels, int taps, bool begin, C* greatest, C* total,
                            C* correction) {
  for (int item = int(threadIdx.x); item < pixels * width; item += int(blockDim.x)) {
    const int pixel = item / width, step = pixels * stride;
    C* const first = logits + pixel * stride + item % width;
    const C before = begin ? C(-INFINITY) : greatest[item];
    C now = before, sum = 0;
    for (int tap = 0; tap < taps; ++tap) now = first[tap * step] > now ? first[tap * step] : now;
    const C origin = now == C(-INFINITY) ? C(0) : now;  // or a difference of infinities would be NaN
    for (int tap = 0; tap < taps; ++tap) {
      const C weight = exponential(first[tap * step] - origin);
      first[tap * step] = weight;
      sum += weight;
    }
    const C factor = exponential(before - origin);
    greatest[item] = now, correction[item] = factor, total[item] = begin ? sum : total[item] * factor + sum;
  }
}

}  // namespace sa_layers::cuda
