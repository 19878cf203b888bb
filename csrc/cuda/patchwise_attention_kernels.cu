// Launcher of patchwise attention.

#include "cuda/banded_patchwise_attention.h"
#include "cuda/launch.h"
#include "cuda/patchwise_attention.cuh"

namespace sa_layers::cuda {
namespace {

// Whether four numbers can be read at once, from every pixel or row.
template <typename T>
bool is_aligned(const void* numbers, int64_t step) {
  return reinterpret_cast<uintptr_t>(numbers) % sizeof(Quad<T>) == 0 && step % 4 == 0;
}

template <typename T>
PatchwiseAttentionOperands<T> operands_of(const PatchwiseAttention& problem, const PatchwiseAttentionTensors& tensors) {
  using C = Compute<T>;
  const auto numbers = [](const void* tensor) { return static_cast<const C*>(tensor); };
  PatchwiseAttentionOperands<T> operands = {};
  operands.query = static_cast<const T*>(tensors.query), operands.key = static_cast<const T*>(tensors.key);
  operands.value = static_cast<const T*>(tensors.value), operands.output = static_cast<T*>(tensors.output);
  operands.scale = numbers(tensors.scale), operands.shift = numbers(tensors.shift);
  operands.hidden_weight = numbers(tensors.hidden_weight), operands.hidden_bias = numbers(tensors.hidden_bias);
  operands.weight = numbers(tensors.weight), operands.bias = numbers(tensors.bias);
  operands.output_scale = numbers(tensors.output_scale), operands.output_shift = numbers(tensors.output_shift);
  operands.query_aligned = is_aligned<T>(tensors.query, problem.query_step);
  operands.key_aligned = is_aligned<T>(tensors.key, problem.key_step);
  // A quad of the value, or of the output, begins at a multiple of four weights.
  const bool whole_quads = problem.weight_channels <= 2 || problem.weight_channels % 4 == 0;
  operands.value_aligned = whole_quads && is_aligned<T>(tensors.value, problem.value_step);
  operands.output_aligned = whole_quads && is_aligned<T>(tensors.output, problem.value_channels);
  operands.norm_aligned = is_aligned<C>(tensors.scale, problem.feature_channels()) &&
                          is_aligned<C>(tensors.shift, problem.feature_channels());
  operands.matrices_aligned = is_aligned<C>(tensors.hidden_weight, problem.weight_channels) &&
                              is_aligned<C>(tensors.weight, problem.weight_channels);
  return operands;
}

// Launches the kernel if there is a plan for it.
template <typename T, bool kTensorCores>
cudaError_t launch_tiles(const PatchwiseAttention& problem, const PatchwiseAttentionTensors& tensors,
                         cudaStream_t stream) {
  DeviceLimits device = {};
  if (const cudaError_t error = describe_device(device)) return error;
  constexpr int kFactorBytes = sizeof(Factor<T, kTensorCores>);
  const auto pieces = kTensorCores ? pieces_of_tensor_cores(kFactorBytes) : pieces_of_multiply_adds(kFactorBytes);
  const auto plan = plan_patchwise_attention(problem, pieces, device.shared_bytes_of_block, device.multiprocessors);
  if (plan.pixels == 0) return cudaErrorInvalidConfiguration;
  const int64_t blocks = (problem.output_pixels() + plan.pixels - 1) / plan.pixels;
  return launch(&patchwise_attention_tiles<T, kTensorCores>, blocks, kAttentionThreads, plan.shared_bytes, stream,
                problem, plan, operands_of<T>(problem, tensors));
}

}  // namespace

cudaError_t launch_patchwise_attention(const PatchwiseAttention& problem, Element element,
                                       const PatchwiseAttentionTensors& tensors, cudaStream_t stream) {
  if (problem.output_pixels() == 0) return cudaSuccess;
  bool launched = false;
  const cudaError_t error = launch_banded_patchwise_attention(problem, element, tensors, stream, launched);
  if (error || launched) return error;
  return dispatch(element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    if constexpr (!std::is_same_v<T, double>) {
      bool found = false;
      if (sizeof(T) == 2 || problem.allow_tf32) {
        const cudaError_t error = find_tensor_cores<T>(&patchwise_attention_tiles<T, true>, found);
        if (error) return error;
      }
      if (found) {
        const cudaError_t error = launch_tiles<T, true>(problem, tensors, stream);
        if (error != cudaErrorInvalidConfiguration) return error;  // or there are too many weights for its registers
      }
    }
    return launch_tiles<T, false>(problem, tensors, stream);
  });
}

}  // namespace sa_layers::cuda
