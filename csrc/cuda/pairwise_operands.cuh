// The operands of pairwise attention as its kernels take them.
#pragma once

#include "cuda/pairs.cuh"

namespace sa_layers::cuda {

// Whether four channels of every pixel can be read at once, if the map has as many.
template <typename T>
inline bool is_aligned(const void* map, const MapSteps& steps) {
  return reinterpret_cast<uintptr_t>(map) % sizeof(Quad<T>) == 0 && steps.image % 4 == 0 && steps.row % 4 == 0 &&
         steps.pixel % 4 == 0;
}

template <typename T>
PairwiseAttentionOperands<T> operands_of(const PairwiseAttention& problem, const PairwiseAttentionTensors& tensors) {
  const auto numbers = [](const void* tensor) { return static_cast<const Compute<T>*>(tensor); };
  PairwiseAttentionOperands<T> operands = {};
  operands.query = static_cast<const T*>(tensors.query), operands.key = static_cast<const T*>(tensors.key);
  operands.value = static_cast<const T*>(tensors.value), operands.output = static_cast<T*>(tensors.output);
  operands.scale = numbers(tensors.scale), operands.shift = numbers(tensors.shift);
  for (int layer = 0; layer < problem.layers; ++layer) {
    operands.weights[layer] = numbers(tensors.weights[layer]), operands.biases[layer] = numbers(tensors.biases[layer]);
  }
  operands.query_position = numbers(tensors.query_position), operands.key_position = numbers(tensors.key_position);
  operands.output_scale = numbers(tensors.output_scale), operands.output_shift = numbers(tensors.output_shift);
  operands.query_aligned = is_aligned<T>(tensors.query, problem.query_steps);
  operands.key_aligned = is_aligned<T>(tensors.key, problem.key_steps);
  operands.value_aligned = is_aligned<T>(tensors.value, problem.value_steps);
  operands.output_aligned = is_aligned<T>(tensors.output, {0, 0, problem.value_channels});
  return operands;
}

}  // namespace sa_layers::cuda
