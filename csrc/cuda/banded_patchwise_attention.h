// Patchwise attention as products of banded matrices: for the widths of SAN in half precision on tensor cores.
#pragma once

#include "cuda/patchwise_attention.h"

namespace sa_layers::cuda {

// Sets `launched` to whether it has a kernel for the problem on the current device, and memory for it.
cudaError_t launch_banded_patchwise_attention(const PatchwiseAttention& problem, Element element,
                                              const PatchwiseAttentionTensors& tensors, cudaStream_t stream,
                                              bool& launched);

}  // namespace sa_layers::cuda
