// Launchers of softmax_aggregation and its gradients: the kernels of aggregation, which make the weights on the way.

#include "cuda/aggregation_launch.cuh"
#include "cuda/softmax_aggregation.h"

namespace sa_layers::cuda {

cudaError_t launch_softmax_aggregation(const Aggregation& problem, Element element, const void* value,
                                       const void* logits, void* output, void* logsumexp, cudaStream_t stream) {
  return launch_aggregation_kernel<true>(problem, element, value, logits, output, logsumexp, stream);
}

cudaError_t launch_softmax_aggregation_value_gradient(const Aggregation& problem, Element element,
                                                      const void* grad_output, const void* logits,
                                                      const void* logsumexp, void* grad_value, cudaStream_t stream) {
  return launch_value_gradient_kernel<true>(problem, element, grad_output, logits, logsumexp, grad_value, stream);
}

cudaError_t launch_softmax_aggregation_logits_gradient(const Aggregation& problem, Element element,
                                                       const void* grad_output, const void* value, const void* logits,
                                                       const void* output, const void* logsumexp, void* grad_logits,
                                                       cudaStream_t stream) {
  return launch_weight_gradient_kernel<true>(problem, element, grad_output, value, logits, output, logsumexp,
                                             grad_logits, stream);
}

}  // namespace sa_layers::cuda
