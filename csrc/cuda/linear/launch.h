// Launchers of the operators around the linear layers of evaluation. Maps are channels last, on the current device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/common/plan.h"

namespace sa_layers::cuda {

// relu(scale * features + shift); the result may be the features themselves.
cudaError_t launch_affine_relu(int64_t pixels, int64_t channels, Element element, const void* features,
                               const void* scale, const void* shift, void* result, cudaStream_t stream);

// The tensors of normed_projection: coefficients are float32, the others have the type of the features.
struct NormedProjection {
  int64_t pixels, channels, out_channels;
  const void *features, *weight, *bias;  // (pixels, C), (C, D), (D)
  const void *scale, *shift;             // (C)
  void* result;                          // (pixels, D)
};

// Sets `launched` to false, and launches nothing, for types, sizes, alignments and devices without a kernel.
cudaError_t launch_normed_projection(const NormedProjection& problem, Element element, cudaStream_t stream,
                                     bool& launched);

// Strides of an image, in elements.
struct ImageSteps {
  int64_t image, channel, row, column;
};

struct Pooling {
  int64_t batch, height, width;  // of the map before pooling
  int64_t channels;              // of the result, (N, H / 2, W / 2, C)

  int64_t rows() const { return batch * (height / 2); }
};

// Features are (N, H, W, C) and contiguous; scale and shift are those of a norm with a ReLU before pooling, or null.
cudaError_t launch_max_pooling(const Pooling& problem, Element element, const void* features, const void* scale,
                               const void* shift, void* result, cudaStream_t stream);
// relu(shift + max over 2x2 pixels of weight^T * pixel), weight (inputs, C).
cudaError_t launch_pooled_projection(const Pooling& problem, int64_t inputs, const ImageSteps& steps, Element element,
                                     const void* image, const void* weight, const void* shift, void* result,
                                     cudaStream_t stream);

}  // namespace sa_layers::cuda
