// Folding the norms of a mapping into its linear layers, before the kernels of pairwise attention read it.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/common/plan.h"
#include "cuda/pairwise_attention/problem.h"

namespace sa_layers::cuda {

// Replaces the weights and biases of the mapping by folded ones, in the dtype of accumulation, which one kernel writes
// to the workspace: each layer but the last then includes the norm after it, and only scales[0] and shifts[0] are still
// to be applied. Launches nothing for a mapping of one layer in that dtype.
cudaError_t fold_mapping(PairwiseAttention& problem, Element element, PairwiseAttentionTensors& tensors,
                         cudaStream_t stream);

}  // namespace sa_layers::cuda
