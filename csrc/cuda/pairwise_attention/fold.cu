// Folds the norms between the layers of a mapping into its linear layers, at every call: nothing is kept that a write
// to a parameter could make stale.

#include <cstdint>
#include <type_traits>

#include "cuda/common/element.cuh"
#include "cuda/common/launch.cuh"
#include "cuda/common/layer_parameter.cuh"
#include "cuda/common/plan.h"
#include "cuda/pairwise_attention/fold.h"
#include "cuda/pairwise_attention/problem.h"
#include "footprint.h"

namespace sa_layers::cuda {

// One thread per number: the weight of a layer (out, in), its bias, then the next layer's.
template <typename T>
__global__ void fold_pairwise_mapping(const __grid_constant__ PairwiseAttention problem,
                                      const __grid_constant__ PairwiseAttentionTensors from, Compute<T>* to) {
  using C = Compute<T>;
  const int thread = int(thread_index());
  for (int layer = 0, first = 0; layer < problem.layers; ++layer) {
    const int inputs = problem.widths[layer], outputs = problem.widths[layer + 1], weights = outputs * inputs;
    const int index = thread - first;
    first += weights + outputs;
    if (thread >= first) continue;
    const bool is_weight = index < weights, is_last = layer + 1 == problem.layers;
    const int output = is_weight ? index / inputs : index - weights;
    const WeightSteps& steps = problem.weight_steps[layer];
    C number = is_weight ? load_number<T>(from.weights[layer], output * steps.output + index % inputs * steps.input)
                         : load_number<T>(from.biases[layer], output);
    if (!is_last) {
      number *= static_cast<const C*>(from.scales[layer + 1])[output];
      if (!is_weight) number += static_cast<const C*>(from.shifts[layer + 1])[output];
    }
    to[thread] = number;
    return;
  }
}

namespace {

bool is_read_where_it_is(const PairwiseAttention& problem, Element element, const PairwiseAttentionTensors& tensors) {
  return problem.layers == 1 &&
         (!is_half(element) || (!tensors.weights[0].in_map_dtype && !tensors.biases[0].in_map_dtype));
}

// The numbers of the folded mapping.
int64_t numbers_of(const PairwiseAttention& problem) {
  int64_t numbers = 0;
  for (int layer = 0; layer < problem.layers; ++layer) {
    numbers += (problem.widths[layer] + 1) * problem.widths[layer + 1];
  }
  return numbers;
}

}  // namespace

int64_t pairwise_workspace_bytes(const PairwiseAttention& problem, Element element,
                                 const PairwiseAttentionTensors& tensors) {
  if (is_read_where_it_is(problem, element, tensors)) return 0;
  return numbers_of(problem) * int64_t(element == Element::kFloat64 ? sizeof(double) : sizeof(float));
}

cudaError_t fold_mapping(PairwiseAttention& problem, Element element, PairwiseAttentionTensors& tensors,
                         cudaStream_t stream) {
  if (is_read_where_it_is(problem, element, tensors)) return cudaSuccess;
  return dispatch(element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    Compute<T>* folded = static_cast<Compute<T>*>(tensors.workspace);
    const cudaError_t error =
        launch_threads(&fold_pairwise_mapping<T>, numbers_of(problem), stream, problem, tensors, folded);
    for (int layer = 0; layer < problem.layers; ++layer) {
      const int inputs = problem.widths[layer], outputs = problem.widths[layer + 1];
      problem.weight_steps[layer] = {inputs, 1};
      tensors.weights[layer] = {folded, false}, folded += outputs * inputs;
      tensors.biases[layer] = {folded, false}, folded += outputs;
    }
    return error;
  });
}

}  // namespace sa_layers::cuda
