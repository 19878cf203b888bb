// Launchers of the aggregation kernels: no torch header, so that nvcc compiles them in seconds.
#pragma once

#include <cuda_runtime_api.h>

#include "footprint.h"

namespace sa_layers::cuda {

enum class Element { kFloat32, kFloat64, kFloat16, kBFloat16 };

// Contiguous tensors, of the shapes that library.cpp gives, on the current device.
cudaError_t launch_aggregation(const Aggregation& problem, Element element, const void* value, const void* weight,
                               void* output, cudaStream_t stream);
cudaError_t launch_aggregation_value_gradient(const Aggregation& problem, Element element, const void* grad_output,
                                              const void* weight, void* grad_value, cudaStream_t stream);
cudaError_t launch_aggregation_weight_gradient(const Aggregation& problem, Element element, const void* grad_output,
                                               const void* value, void* grad_weight, cudaStream_t stream);

}  // namespace sa_layers::cuda
