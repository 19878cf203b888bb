// What the kernels of the passes read and write: maps, parameters and workspaces.
#pragma once

#include "cpu/patchwise_training/problem.h"

namespace sa_layers::cpu {

// A channels-last map whose pixels are pixel_stride elements apart.
template <typename T>
struct PixelMap {
  T* data;
  int64_t pixel_stride;
};

// The gradient of a map, which tasks sum over bands of its rows. A task stores the rows that its band alone reads, and
// leaves the others in a workspace, from which `add_bands` adds them.
template <typename T>
struct MapGradient {
  PixelMap<T> map;
  Compute<T>* workspace;  // region_size for every slice and band, or null
  int64_t region_size;

  Compute<T>* region(const RowBands& bands, int64_t slice, int64_t band) const {
    return workspace + (slice * bands.count + band) * region_size;
  }
};

// What both passes of the hidden layer read. Parameters are those of modules, in the compute dtype; pack_hidden writes
// the packed ones.
template <typename T>
struct HiddenOperands {
  const HiddenProblem& problem;
  PixelMap<const T> query, key;
  const Compute<T>*scale, *shift, *weight;  // (F,), (F,), (Cw, F)
  Compute<T>*packed_scale, *packed_shift, *packed_weight;
};

// What the backward pass reads and writes besides.
template <typename T>
struct HiddenGradients {
  const Compute<T>* grad_z;       // (N, Ho, Wo, Cw)
  const Compute<T>* packed_mean;  // as the packed scale
  // Of every task: the sums for the columns of its slice, [vector][weight channel][lane], then totals and moments.
  Compute<T>* sums;
  PixelMap<T> query;
  MapGradient<T> key;
};

// The same for the weighted sum; pack_weighted_sum writes the packed parameters.
template <typename T>
struct WeightedSumOperands {
  const WeightedSumProblem& problem;
  const Compute<T>* z;  // (N, Ho, Wo, Cw)
  PixelMap<const T> value;
  const Compute<T>*scale, *shift, *weight, *bias;  // (Cw,), (Cw,), (Cw * taps, Cw), (Cw * taps,)
  Compute<T>*packed_weight, *packed_bias;
  Compute<T>* packed_outputs;  // the weight with the hidden channels as outputs; null in the forward pass
};

template <typename T>
struct WeightedSumGradients {
  PixelMap<const T> output;
  Compute<T>* hidden;  // (slices, N, Ho, Wo, Cw)
  // Of every task: the sums for the columns of its slice, [vector][hidden channel][lane], then their totals.
  Compute<T>* sums;
  MapGradient<T> value;
};

// Query or key by rows, how often each of `taps` taps along an axis reads a column, (taps, width), and for the backward
// pass (2, height, taps, channels) coefficients and the gradient.
template <typename T>
struct NormedMap {
  PixelMap<const T> pixels;
  int64_t batch, height, width, channels, taps;
  const double *columns, *coefficients;
  PixelMap<T> gradient;

  const T* row(int64_t image, int64_t row) const {
    return pixels.data + (image * height + row) * width * pixels.pixel_stride;
  }
};

}  // namespace sa_layers::cpu
