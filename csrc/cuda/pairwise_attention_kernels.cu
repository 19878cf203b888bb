// Launcher of pairwise attention.

#include "cuda/banded_pairwise_attention.h"
#include "cuda/launch.h"
#include "cuda/pairwise_attention.cuh"
#include "cuda/pairwise_operands.cuh"

namespace sa_layers::cuda {
namespace {

template <typename T, bool kTensorCores>
cudaError_t launch_tiles(const PairwiseAttention& problem, const PairwiseAttentionTensors& tensors,
                         cudaStream_t stream) {
  DeviceLimits device = {};
  if (const cudaError_t error = describe_device(device)) return error;
  const MatrixNumbers numbers = {sizeof(Factor<T, kTensorCores>), sizeof(Compute<T>), kTensorCores};
  const auto plan = plan_pairwise_attention(problem, numbers, device.shared_bytes_of_block, device.multiprocessors);
  if (plan.pixels == 0) return cudaErrorInvalidConfiguration;
  const int64_t blocks = (problem.output_pixels() + plan.pixels - 1) / plan.pixels;
  return launch(&pairwise_attention_tiles<T, kTensorCores>, blocks, kAttentionThreads, plan.shared_bytes, stream,
                problem, plan, operands_of<T>(problem, tensors));
}

}  // namespace

cudaError_t launch_pairwise_attention(const PairwiseAttention& problem, Element element,
                                      const PairwiseAttentionTensors& tensors, cudaStream_t stream) {
  if (problem.output_pixels() == 0) return cudaSuccess;
  bool launched = false;
  const cudaError_t error = launch_banded_pairwise_attention(problem, element, tensors, stream, launched);
  if (error || launched) return error;
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
