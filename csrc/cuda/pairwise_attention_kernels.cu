// Launcher of pairwise attention.

#include "cuda/launch.h"
#include "cuda/pairwise_attention.cuh"

namespace sa_layers::cuda {
namespace {

// Whether four channels of every pixel can be read at once, if the map has as many.
template <typename T>
bool is_aligned(const void* map, const MapSteps& steps) {
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

template <typename T, bool kTensorCores>
cudaError_t launch_tiles(const PairwiseAttention& problem, const PairwiseAttentionTensors& tensors,
                         cudaStream_t stream) {
  int device = 0, shared_limit = 0, multiprocessors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (!error) error = cudaDeviceGetAttribute(&shared_limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (!error) error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error) return error;
  const MatrixNumbers numbers = {sizeof(Factor<T, kTensorCores>), sizeof(Compute<T>), kTensorCores};
  const auto plan = plan_pairwise_attention(problem, numbers, shared_limit, multiprocessors);
  if (plan.pixels == 0) return cudaErrorInvalidConfiguration;
  const int64_t blocks = (problem.output_pixels() + plan.pixels - 1) / plan.pixels;
  return launch(&pairwise_attention_tiles<T, kTensorCores>, blocks, kAttentionThreads, plan.shared_bytes, stream,
                problem, plan, operands_of<T>(problem, tensors));
}

}  // namespace

cudaError_t launch_pairwise_attention(const PairwiseAttention& problem, Element element,
                                      const PairwiseAttentionTensors& tensors, cudaStream_t stream) {
  if (problem.output_pixels() == 0) return cudaSuccess;
  return dispatch(element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    if constexpr (!std::is_same_v<T, double>) {
      bool found = false;
      if (sizeof(T) == 2 || problem.allow_tf32) {
        if (const cudaError_t error = find_tensor_cores<T>(&pairwise_attention_tiles<T, true>, found)) return error;
      }
      if (found) return launch_tiles<T, true>(problem, tensors, stream);
    }
    return launch_tiles<T, false>(problem, tensors, stream);
  });
}

}  // namespace sa_layers::cuda
