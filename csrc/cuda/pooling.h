// What the operators that pool 2x2 pixels are asked for, and their launchers; see aggregation.h.
#pragma once

#include "cuda/aggregation.h"

namespace sa_layers::cuda {

// Where something lies in an image, in elements.
struct ImageSteps {
  int64_t image, channel, row, column;
};

struct Pooling {
  int64_t batch, height, width;  // of what is pooled
  int64_t channels;              // of the result, (N, H / 2, W / 2, C)

  int64_t rows() const { return batch * (height / 2); }
};

// Features are (N, H, W, C) and contiguous; scale and shift are those of a norm with a ReLU before, or null.
cudaError_t launch_max_pooling(const Pooling& problem, Element element, const void* features, const void* scale,
                               const void* shift, void* result, cudaStream_t stream);
// relu(shift + max over 2x2 pixels of weight^T * pixel), weight (inputs, C); the image lies as its steps say.
cudaError_t launch_pooled_projection(const Pooling& problem, int64_t inputs, const ImageSteps& steps, Element element,
                                     const void* image, const void* weight, const void* shift, void* result,
                                     cudaStream_t stream);

}  // namespace sa_layers::cuda
