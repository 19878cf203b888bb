// Launcher of affine_relu; see aggregation.h.
#pragma once

#include "cuda/aggregation.h"

namespace sa_layers::cuda {

// Maps of so many pixels, channels last; the result may be the features themselves.
cudaError_t launch_affine_relu(int64_t pixels, int64_t channels, Element element, const void* features,
                               const void* scale, const void* shift, void* result, cudaStream_t stream);

}  // namespace sa_layers::cuda
