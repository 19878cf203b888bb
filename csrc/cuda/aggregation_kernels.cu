// Launchers of aggregation and its gradients.

#include "cuda/aggregation_launch.cuh"

namespace sa_layers::cuda {

cudaError_t launch_aggregation(const Aggregation& problem, Element element, const void* value, const void* weight,
                               void* output, cudaStream_t stream) {
  return launch_aggregation_kernel<false>(problem, element, value, weight, output, nullptr, stream);
}

cudaError_t launch_aggregation_value_gradient(const Aggregation& problem, Element element, const void* grad_output,
                                              const void* weight, void* grad_value, cudaStream_t stream) {
  return launch_value_gradient_kernel<false>(problem, element, grad_output, weight, nullptr, grad_value, stream);
}

cudaError_t launch_aggregation_weight_gradient(const Aggregation& problem, Element element, const void* grad_output,
                                               const void* value, void* grad_weight, cudaStream_t stream) {
  return launch_weight_gradient_kernel<false>(problem, element, grad_output, value, nullptr, nullptr, nullptr,
                                              grad_weight, stream);
}

}  // namespace sa_layers::cuda
