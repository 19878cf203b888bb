// Launcher of normed_projection; see aggregation.h.
#pragma once

#include "cuda/aggregation.h"

namespace sa_layers::cuda {

// Pointers of the operator's tensors: coefficients are float32, the others have the type of the features.
struct NormedProjection {
  int64_t pixels, channels, out_channels;
  const void *features, *weight, *bias;  // (pixels, C), (C, D), (D)
  const void *scale, *shift;             // (C)
  void* result;                          // (pixels, D)
};

// Nothing is launched where there is no kernel: for other types, sizes, alignments and devices.
cudaError_t launch_normed_projection(const NormedProjection& problem, Element element, cudaStream_t stream,
                                     bool& launched);

}  // namespace sa_layers::cuda
