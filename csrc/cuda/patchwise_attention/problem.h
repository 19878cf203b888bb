// The problem that the kernels of patchwise attention solve, its limits, and the entry point of the implementations.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

#include "cuda/common/plan.h"
#include "footprint.h"

namespace sa_layers::cuda {

// Limits: the sums of a pixel fit the registers of a block, and all its other data the shared memory of every GPU.
constexpr int kPatchwiseWeights = 512;  // per tap
constexpr int kPatchwiseValues = 3072;  // channels of the value
constexpr int kPatchwiseTaps = 4095;    // per footprint

struct PatchwiseAttention {
  Footprint footprint;
  PatchwiseRelation relation;
  int64_t batch;
  int relation_channels, value_channels, weight_channels;
  int64_t query_step, key_step, value_step;  // strides between pixels of a map whose channels are contiguous
  bool allow_tf32;                           // for the mapping's products of float32 maps

  // The input of the hidden layer: the query and then every tap, or the products of pairs of pixels as channels of one
  // tap.
  SA_LAYERS_HOST_DEVICE bool is_product() const { return relation != PatchwiseRelation::kConcatenation; }
  SA_LAYERS_HOST_DEVICE int feature_taps() const { return is_product() ? 1 : int(footprint.taps()) + 1; }
  SA_LAYERS_HOST_DEVICE int feature_channels() const {
    if (!is_product()) return relation_channels;
    return int(relation == PatchwiseRelation::kStar ? footprint.taps() : footprint.taps() * footprint.taps());
  }
  SA_LAYERS_HOST_DEVICE int64_t output_pixels() const { return batch * footprint.output_pixels(); }
};

// Maps have the element type, parameters other than weights and biases that of accumulation: float, or double for
// kFloat64. Layer l of the mapping is weights[l] * relu(scales[l] * x + shifts[l]) + biases[l]. Parameters are
// contiguous, in the order of library.cpp; the output is (N, Ho, Wo, C). output_scale and output_shift may be null.
struct PatchwiseAttentionTensors {
  const void *query, *key, *value;
  const void *scales[2], *shifts[2];
  LayerParameter weights[2], biases[2];
  const void *output_scale, *output_shift;
  void* output;
  void* workspace;  // of patchwise_workspace_bytes, aligned to 16 bytes
};

// Each kernel first writes the mapping to the workspace, in the order in which it reads it.
int64_t patchwise_workspace_bytes(const PatchwiseAttention& problem, Element element);

cudaError_t launch_patchwise_attention(const PatchwiseAttention& problem, Element element,
                                       const PatchwiseAttentionTensors& tensors, cudaStream_t stream);

// One line per implementation, in the order in which they are tried: its name, and after a colon why it is not
// eligible. Asks the current device if there is one.
std::string patchwise_attention_implementations(const PatchwiseAttention& problem, Element element);

}  // namespace sa_layers::cuda
