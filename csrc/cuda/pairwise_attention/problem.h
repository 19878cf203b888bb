// The problem that the kernels of pairwise attention solve, its limits, and the entry point of the implementations.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

#include "cuda/common/plan.h"
#include "footprint.h"

namespace sa_layers::cuda {

constexpr int kMappingLayers = 3;         // at most
constexpr int kPositionWidth = 4;         // at most, per pair
constexpr int kWidestLayer = 384;         // at most: fits the shared memory of every GPU
constexpr int kMostValueChannels = 4096;  // at most: the sums of one pixel fit the registers of a block

// Strides, in elements, between images, rows and pixels of a map whose channels are contiguous.
struct MapSteps {
  int64_t image, row, pixel;
};

struct PairwiseAttention {
  Footprint footprint;
  Relation relation;
  int64_t batch;
  int channels, value_channels, positions;
  int layers, widths[kMappingLayers + 1];   // of the mapping: its input, the hidden layers, its output
  int64_t position_height, position_width;  // coordinates span -1 to 1 across so many pixels; 0: across the map
  MapSteps query_steps, key_steps, value_steps;
  WeightSteps weight_steps[kMappingLayers];  // of the mapping's weights (out, in)
  bool allow_tf32;                           // for the mapping's products of float32 maps

  SA_LAYERS_HOST_DEVICE int relation_channels() const { return widths[0] - positions; }
  SA_LAYERS_HOST_DEVICE int weight_channels() const { return widths[layers]; }
  SA_LAYERS_HOST_DEVICE int64_t output_pixels() const { return batch * footprint.output_pixels(); }
};

// Maps have the element type, parameters other than weights and biases that of accumulation: float, or double for
// kFloat64. Layer l of the mapping is weights[l] * relu(scales[l] * x + shifts[l]) + biases[l]. Vectors and positions,
// (P, 3), are contiguous; the output is (N, Ho, Wo, C). Null where absent: positions, output_scale and output_shift.
struct PairwiseAttentionTensors {
  const void *query, *key, *value;
  const void *scales[kMappingLayers], *shifts[kMappingLayers];
  LayerParameter weights[kMappingLayers], biases[kMappingLayers];
  const void *query_position, *key_position, *output_scale, *output_shift;
  void* output;
  void* workspace;  // of pairwise_workspace_bytes, for the folded mapping
};

// 0 if the mapping is read where it is.
int64_t pairwise_workspace_bytes(const PairwiseAttention& problem, Element element,
                                 const PairwiseAttentionTensors& tensors);

cudaError_t launch_pairwise_attention(const PairwiseAttention& problem, Element element,
                                      const PairwiseAttentionTensors& tensors, cudaStream_t stream);

// One line per implementation, in the order in which they are tried: its name, and after a colon why it is not
// eligible. Asks the current device if there is one.
std::string pairwise_attention_implementations(const PairwiseAttention& problem, Element element);

}  // namespace sa_layers::cuda
