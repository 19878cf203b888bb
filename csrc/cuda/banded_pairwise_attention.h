// Pairwise attention as products of banded matrices: for the widths of SAN in half precision on tensor cores.
#pragma once

#include "cuda/pairwise_attention.h"

namespace sa_layers::cuda {

// Sets `launched` to whether it has a kernel for the problem on the current device.
cudaError_t launch_banded_pairwise_attention(const PairwiseAttention& problem, Element element,
                                             const PairwiseAttentionTensors& tensors, cudaStream_t stream,
                                             bool& launched);

}  // namespace sa_layers::cuda
