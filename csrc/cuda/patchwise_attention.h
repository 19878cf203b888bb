// Patchwise attention in one pass: what its kernel is told, and its launcher. See aggregation.h.
#pragma once

#include "cuda/aggregation.h"

namespace sa_layers::cuda {

// At most: the sums of a pixel fit the registers of a block, all else that belongs to it the shared memory of every
// GPU.
constexpr int kPatchwiseWeights = 512;  // of a tap
constexpr int kPatchwiseValues = 3072;  // channels of the value
constexpr int kPatchwiseTaps = 4095;    // of a footprint

struct PatchwiseAttention {
  Footprint footprint;
  PatchwiseRelation relation;
  int64_t batch;
  int relation_channels, value_channels, weight_channels;
  int64_t query_step, key_step, value_step;  // to the next pixel of a map, whose channels lie side by side
  bool allow_tf32;                           // for the products of the mapping, of float32 maps

  // What the hidden layer reads: the query and then every tap, or the products of pairs of pixels as channels of one.
  SA_LAYERS_HOST_DEVICE bool is_product() const { return relation != PatchwiseRelation::kConcatenation; }
  SA_LAYERS_HOST_DEVICE int feature_taps() const { return is_product() ? 1 : int(footprint.taps()) + 1; }
  SA_LAYERS_HOST_DEVICE int feature_channels() const {
    if (!is_product()) return relation_channels;
    return int(relation == PatchwiseRelation::kStar ? footprint.taps() : footprint.taps() * footprint.taps());
  }
  SA_LAYERS_HOST_DEVICE int64_t output_pixels() const { return batch * footprint.output_pixels(); }
};

// Maps have the element type, all else that of sums: float, or double for kFloat64. The mapping's tensors are
// contiguous, of the shapes that library.cpp gives; the output is (N, Ho, Wo, C). output_scale and output_shift are
// null for none.
struct PatchwiseAttentionTensors {
  const void *query, *key, *value, *scale, *shift;
  const void *hidden_weight, *hidden_bias, *weight, *bias;
  const void *output_scale, *output_shift;
  void* output;
  void* workspace;  // of patchwise_workspace_bytes, for the kernel with banded matrices; null for none
};

// What a kernel with banded matrices would need, aligned to 16 bytes; 0 where there is none for the problem.
int64_t patchwise_workspace_bytes(const PatchwiseAttention& problem, Element element);

cudaError_t launch_patchwise_attention(const PatchwiseAttention& problem, Element element,
                                       const PatchwiseAttentionTensors& tensors, cudaStream_t stream);

}  // namespace sa_layers::cuda
