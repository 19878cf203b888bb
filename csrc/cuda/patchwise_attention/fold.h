// Folding and rearranging the mapping before the general kernels of patchwise attention read it. (The banded kernel has
// a layout of its own: banded/packing.cuh.)
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/common/plan.h"
#include "cuda/patchwise_attention/problem.h"

namespace sa_layers::cuda {

// In the dtype of accumulation. D and R are the problem's feature_taps and feature_channels, Cw its weight_channels.
struct FoldedMapping {
  const void *scale, *shift;  // (D, R)
  const void* hidden_weight;  // (D, R, Cw), with the norm before the second layer
  const void* hidden_bias;    // (Cw)
  const void* weight;         // (Cw, taps, Cw), hidden channels first
  const void* bias;           // (taps, Cw)
};

int64_t folded_mapping_bytes(const PatchwiseAttention& problem, Element element);

// Writes the mapping to the workspace with one kernel; each tensor begins at a multiple of four numbers.
cudaError_t fold_mapping(const PatchwiseAttention& problem, Element element, const PatchwiseAttentionTensors& tensors,
                         cudaStream_t stream, FoldedMapping& folded);

}  // namespace sa_layers::cuda
