// Launchers of the pairwise relation kernels; see aggregation.h.
#pragma once

#include "cuda/aggregation.h"

namespace sa_layers::cuda {

// Every relation but kDot, which is a weight's gradient of aggregation. The problem has as many weight channels as
// channels.
cudaError_t launch_pairwise_relation(const Aggregation& problem, Relation relation, Element element, const void* query,
                                     const void* key, void* result, cudaStream_t stream);
cudaError_t launch_pairwise_relation_query_gradient(const Aggregation& problem, Relation relation, Element element,
                                                    const void* grad_output, const void* key, void* grad_query,
                                                    cudaStream_t stream);
// The queries of the output pixels, (N, C, Ho, Wo).
cudaError_t launch_centres(const Aggregation& problem, Element element, const void* query, void* centres,
                           cudaStream_t stream);

}  // namespace sa_layers::cuda
