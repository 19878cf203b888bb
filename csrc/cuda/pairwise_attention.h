// Pairwise attention in one pass: what its kernel is told, and its launcher. See aggregation.h.
#pragma once

#include "cuda/aggregation.h"
#include "cuda/matrix_tiles.h"

namespace sa_layers::cuda {

constexpr int kMappingLayers = 3;         // at most
constexpr int kPositionWidth = 4;         // the position features of a pair, at most
constexpr int kWidestLayer = 384;         // features of a pair, at most: they fit the shared memory of every GPU
constexpr int kMostValueChannels = 4096;  // the sums of one pixel fit the registers of a block

// Steps, in elements, to the next image, row and pixel of a map, whose channels lie side by side.
struct MapSteps {
  int64_t image, row, pixel;
};

struct PairwiseAttention {
  Footprint footprint;
  Relation relation;
  int64_t batch;
  int channels, value_channels, positions;
  int layers, widths[kMappingLayers + 1];   // of the mapping: its input, what lies between, its output
  int64_t position_height, position_width;  // coordinates run from -1 to 1 across so many pixels; 0: across the map
  MapSteps query_steps, key_steps, value_steps;
  WeightSteps weight_steps[kMappingLayers];
  bool allow_tf32;  // for the products of the mapping, of float32 maps

  SA_LAYERS_HOST_DEVICE int relation_channels() const { return widths[0] - positions; }
  SA_LAYERS_HOST_DEVICE int weight_channels() const { return widths[layers]; }
  SA_LAYERS_HOST_DEVICE int64_t output_pixels() const { return batch * footprint.output_pixels(); }
};

// Maps have the element type, all else that of sums: float, or double for kFloat64. Vectors and positions, (P, 3), are
// contiguous; the output is (N, Ho, Wo, C). Null: positions of none, output_scale and output_shift of no epilogue.
struct PairwiseAttentionTensors {
  const void *query, *key, *value, *scale, *shift;
  const void *weights[kMappingLayers], *biases[kMappingLayers];
  const void *query_position, *key_position, *output_scale, *output_shift;
  void* output;
};

cudaError_t launch_pairwise_attention(const PairwiseAttention& problem, Element element,
                                      const PairwiseAttentionTensors& tensors, cudaStream_t stream);

}  // namespace sa_layers::cuda
