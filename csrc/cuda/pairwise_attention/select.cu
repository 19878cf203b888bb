// The implementations of pairwise attention in the order in which they are tried, and the launch of the first eligible
// one.

#include <cstdint>
#include <string>
#include <type_traits>

#include "cuda/common/implementations.h"
#include "cuda/common/launch.cuh"
#include "cuda/pairwise_attention/fold.h"
#include "cuda/pairwise_attention/general.cuh"
#include "cuda/pairwise_attention/plan.h"
#include "cuda/pairwise_attention/problem.h"
#include "footprint.h"

namespace sa_layers::cuda {
namespace {

static_assert(kMappingLayers == 3 && kPositionWidth == 4 && kWidestLayer == 384 && kMostValueChannels == 4096);

// The limits of all implementations.
const char* why_not_limits(const PairwiseAttention& problem) {
  if (problem.layers < 1 || problem.layers > kMappingLayers) return "the mapping does not have 1 to 3 layers";
  if (problem.positions > kPositionWidth) return "there are more than 4 position channels";
  for (int layer = 0; layer <= problem.layers; ++layer) {
    if (problem.widths[layer] > kWidestLayer) return "a layer of the mapping has more than 384 channels";
  }
  return problem.value_channels > kMostValueChannels ? "the value has more than 4096 channels" : nullptr;
}

const char* why_not_banded_kernel(PairwiseAttentionCall& call) {
  const char* const reason = why_not_limits(call.problem);
  return reason ? reason : why_not_banded(call);
}

template <typename T, bool kTensorCores>
void plan_tiles(PairwiseAttentionCall& call) {
  const ProductTypes numbers = {sizeof(Factor<T, kTensorCores>), sizeof(Compute<T>), kTensorCores};
  call.general =
      plan_pairwise_attention(call.problem, numbers, call.device->shared_bytes_of_block, call.device->multiprocessors);
}

const char* why_not_tensor_cores(PairwiseAttentionCall& call) {
  if (const char* const reason = why_not_limits(call.problem)) return reason;
  if (call.element == Element::kFloat64) return "maps are float64";
  if (call.element == Element::kFloat32 && !call.problem.allow_tf32) return "maps are float32 and TF32 is not allowed";
  if (!call.device) return nullptr;
  const char* reason = nullptr;
  dispatch(call.element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    if constexpr (!std::is_same_v<T, double>) {
      reason = has_tensor_cores_for<T>(&pairwise_attention_tiles<T, true>) ? nullptr : kNoTensorCores;
      if (!reason) plan_tiles<T, true>(call);
    }
    return cudaSuccess;
  });
  return reason;
}

const char* why_not_multiply_adds(PairwiseAttentionCall& call) {
  if (const char* const reason = why_not_limits(call.problem)) return reason;
  if (!call.device) return nullptr;
  dispatch(call.element, [&](auto* null) {
    plan_tiles<std::remove_pointer_t<decltype(null)>, false>(call);
    return cudaSuccess;
  });
  return nullptr;
}

template <bool kTensorCores>
cudaError_t launch_general(const PairwiseAttentionCall& call, cudaStream_t stream) {
  const PairwiseAttentionPlan& plan = call.general;
  if (plan.pixels == 0) return cudaErrorInvalidConfiguration;
  return dispatch(call.element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    if constexpr (!kTensorCores || !std::is_same_v<T, double>) {
      return launch(&pairwise_attention_tiles<T, kTensorCores>,
                    ceil_div<int64_t>(call.problem.output_pixels(), plan.pixels), kAttentionThreads, plan.shared_bytes,
                    stream, call.problem, plan, operands_of<T>(call.problem, *call.tensors));
    } else {
      return cudaErrorInvalidValue;
    }
  });
}

const Implementation<PairwiseAttentionCall> kImplementations[] = {
    {"banded", &why_not_banded_kernel, &launch_banded},
    {"tensor_cores", &why_not_tensor_cores, &launch_general<true>},
    {"multiply_adds", &why_not_multiply_adds, &launch_general<false>},
};

}  // namespace

cudaError_t launch_pairwise_attention(const PairwiseAttention& problem, Element element,
                                      const PairwiseAttentionTensors& tensors, cudaStream_t stream) {
  if (problem.output_pixels() == 0) return cudaSuccess;
  DeviceLimits device = {};
  if (const cudaError_t error = describe_device(device)) return error;
  PairwiseAttention folded = problem;
  PairwiseAttentionTensors folded_tensors = tensors;
  if (const cudaError_t error = fold_mapping(folded, element, folded_tensors, stream)) return error;
  PairwiseAttentionCall call = {folded, element, &folded_tensors, &device};
  return launch_first(kImplementations, call, stream);
}

std::string pairwise_attention_implementations(const PairwiseAttention& problem, Element element) {
  DeviceLimits device = {};
  const bool found = has_device(device);
  PairwiseAttentionCall call = {problem, element, nullptr, found ? &device : nullptr};
  return describe(kImplementations, call);
}

}  // namespace sa_layers::cuda
