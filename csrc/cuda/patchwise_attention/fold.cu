// Folds and rearranges the mapping for the general kernels of patchwise attention.

#include <cstdint>
#include <type_traits>

#include "cuda/common/element.cuh"
#include "cuda/common/launch.cuh"
#include "cuda/common/plan.h"
#include "cuda/patchwise_attention/fold.h"
#include "cuda/patchwise_attention/parameters.cuh"
#include "cuda/patchwise_attention/problem.h"
#include "footprint.h"

namespace sa_layers::cuda {

// Where each tensor begins in the workspace, in numbers; the scale is the first one.
struct FoldedOffsets {
  int64_t shift, hidden_weight, hidden_bias, weight, bias, end;
};

// One thread per number, so that neighbouring threads write neighbouring numbers.
template <typename T>
__global__ void fold_patchwise_mapping(const __grid_constant__ PatchwiseParameters<T> from,
                                       const __grid_constant__ FoldedOffsets offsets, Compute<T>* to) {
  const int64_t thread = thread_index();
  if (thread >= offsets.end) return;
  const int channels = from.problem.feature_channels(), feature_taps = from.problem.feature_taps();
  const int taps = int(from.problem.footprint.taps()), weights = from.problem.weight_channels;
  Compute<T> number = 0;  // between tensors
  if (thread < offsets.hidden_weight) {
    const bool is_scale = thread < offsets.shift;
    const int64_t index = is_scale ? thread : thread - offsets.shift;
    const int tap = int(index / channels), channel = int(index % channels);
    if (tap < feature_taps) number = is_scale ? from.scale(tap, channel) : from.shift(tap, channel);
  } else if (thread < offsets.hidden_bias) {
    const int64_t index = thread - offsets.hidden_weight, feature = index / weights;
    const int tap = int(feature / channels);
    if (tap < feature_taps) number = from.hidden_weight(tap, int(feature % channels), int(index % weights));
  } else if (thread < offsets.weight) {
    const int index = int(thread - offsets.hidden_bias);
    if (index < weights) number = from.hidden_bias(index);
  } else if (thread < offsets.bias) {
    const int64_t index = thread - offsets.weight, row = index / weights;
    const int hidden = int(row / taps);
    if (hidden < weights) number = from.weight(hidden, int(row % taps), int(index % weights));
  } else {
    const int index = int(thread - offsets.bias), tap = index / weights;
    if (tap < taps) number = from.bias(tap, index % weights);
  }
  to[thread] = number;
}

namespace {

FoldedOffsets offsets_of(const PatchwiseAttention& problem) {
  const int64_t features = int64_t(problem.feature_taps()) * problem.feature_channels();
  const int64_t taps = problem.footprint.taps(), weights = problem.weight_channels;
  const auto whole_packs = [](int64_t numbers) { return ceil_div<int64_t>(numbers, 4) * 4; };
  FoldedOffsets offsets = {};
  offsets.shift = whole_packs(features);
  offsets.hidden_weight = offsets.shift + whole_packs(features);
  offsets.hidden_bias = offsets.hidden_weight + whole_packs(features * weights);
  offsets.weight = offsets.hidden_bias + whole_packs(weights);
  offsets.bias = offsets.weight + whole_packs(weights * taps * weights);
  offsets.end = offsets.bias + whole_packs(taps * weights);
  return offsets;
}

}  // namespace

int64_t folded_mapping_bytes(const PatchwiseAttention& problem, Element element) {
  return offsets_of(problem).end * int64_t(element == Element::kFloat64 ? sizeof(double) : sizeof(float));
}

cudaError_t fold_mapping(const PatchwiseAttention& problem, Element element, const PatchwiseAttentionTensors& tensors,
                         cudaStream_t stream, FoldedMapping& folded) {
  const FoldedOffsets offsets = offsets_of(problem);
  return dispatch(element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    Compute<T>* const to = static_cast<Compute<T>*>(tensors.workspace);
    folded = {to,
              to + offsets.shift,
              to + offsets.hidden_weight,
              to + offsets.hidden_bias,
              to + offsets.weight,
              to + offsets.bias};
    const PatchwiseParameters<T> parameters = {problem, tensors};
    return launch_threads(&fold_patchwise_mapping<T>, offsets.end, stream, parameters, offsets, to);
  });
}

}  // namespace sa_layers::cuda
