// Launchers of aggregation, softmax aggregation, pairwise relations and their gradients. Without torch headers, so that
// nvcc compiles the kernels in seconds. Tensors are contiguous, of the shapes in library.cpp, on the current device.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/common/plan.h"
#include "footprint.h"

namespace sa_layers::cuda {

// Aggregation.
cudaError_t launch_aggregation(const Aggregation& problem, Element element, const void* value, const void* weight,
                               void* output, cudaStream_t stream);
cudaError_t launch_aggregation_value_gradient(const Aggregation& problem, Element element, const void* grad_output,
                                              const void* weight, void* grad_value, cudaStream_t stream);
cudaError_t launch_aggregation_weight_gradient(const Aggregation& problem, Element element, const void* grad_output,
                                               const void* value, void* grad_weight, cudaStream_t stream);

// Softmax aggregation. max_logits and normalizers, (N, Cw, Ho * Wo), are float, or double for kFloat64.
cudaError_t launch_softmax_aggregation(const Aggregation& problem, Element element, const void* value,
                                       const void* logits, void* output, void* max_logits, void* normalizers,
                                       cudaStream_t stream);
cudaError_t launch_softmax_aggregation_value_gradient(const Aggregation& problem, Element element,
                                                      const void* grad_output, const void* logits,
                                                      const void* max_logits, const void* normalizers, void* grad_value,
                                                      cudaStream_t stream);
cudaError_t launch_softmax_aggregation_logits_gradient(const Aggregation& problem, Element element,
                                                       const void* grad_output, const void* value, const void* logits,
                                                       const void* max_logits, const void* normalizers,
                                                       void* grad_logits, cudaStream_t stream);

// Pairwise relations, except kDot. The problem has as many weight channels as channels.
cudaError_t launch_pairwise_relation(const Aggregation& problem, Relation relation, Element element, const void* query,
                                     const void* key, void* result, cudaStream_t stream);
cudaError_t launch_pairwise_relation_query_gradient(const Aggregation& problem, Relation relation, Element element,
                                                    const void* grad_output, const void* key, void* grad_query,
                                                    cudaStream_t stream);
// The queries of the output pixels, (N, C, Ho, Wo).
cudaError_t launch_centres(const Aggregation& problem, Element element, const void* query, void* centres,
                           cudaStream_t stream);

}  // namespace sa_layers::cuda
