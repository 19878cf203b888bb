// Launchers of the softmax aggregation kernels; see aggregation.h.
#pragma once

#include "cuda/aggregation.h"

namespace sa_layers::cuda {

// logsumexp, (N, Cw, Ho * Wo), is float, or double for kFloat64.
cudaError_t launch_softmax_aggregation(const Aggregation& problem, Element element, const void* value,
                                       const void* logits, void* output, void* logsumexp, cudaStream_t stream);
cudaError_t launch_softmax_aggregation_value_gradient(const Aggregation& problem, Element element,
                                                      const void* grad_output, const void* logits,
                                                      const void* logsumexp, void* grad_value, cudaStream_t stream);
cudaError_t launch_softmax_aggregation_logits_gradient(const Aggregation& problem, Element element,
                                                       const void* grad_output, const void* value, const void* logits,
                                                       const void* output, const void* logsumexp, void* grad_logits,
                                                       cudaStream_t stream);

}  // namespace sa_layers::cuda
