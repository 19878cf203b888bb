// The implementations of patchwise attention in the order in which they are tried, and the launch of the first eligible
// one.

#include <cstdint>
#include <string>
#include <type_traits>

#include "cuda/common/implementations.h"
#include "cuda/common/launch.cuh"
#include "cuda/patchwise_attention/fold.h"
#include "cuda/patchwise_attention/general.cuh"
#include "cuda/patchwise_attention/plan.h"
#include "cuda/patchwise_attention/problem.h"
#include "footprint.h"

namespace sa_layers::cuda {
namespace {

// Whether every pixel or row is aligned to packs of four numbers.
template <typename T>
bool is_aligned(const void* numbers, int64_t step) {
  return reinterpret_cast<uintptr_t>(numbers) % sizeof(Pack<T, 4>) == 0 && step % 4 == 0;
}

template <typename T>
PatchwiseAttentionOperands<T> operands_of(const PatchwiseAttention& problem, const PatchwiseAttentionTensors& tensors,
                                          const FoldedMapping& mapping) {
  using C = Compute<T>;
  const auto numbers = [](const void* tensor) { return static_cast<const C*>(tensor); };
  PatchwiseAttentionOperands<T> operands = {};
  operands.query = static_cast<const T*>(tensors.query), operands.key = static_cast<const T*>(tensors.key);
  operands.value = static_cast<const T*>(tensors.value), operands.output = static_cast<T*>(tensors.output);
  operands.scale = numbers(mapping.scale), operands.shift = numbers(mapping.shift);
  operands.hidden_weight = numbers(mapping.hidden_weight), operands.hidden_bias = numbers(mapping.hidden_bias);
  operands.weight = numbers(mapping.weight), operands.bias = numbers(mapping.bias);
  operands.output_scale = numbers(tensors.output_scale), operands.output_shift = numbers(tensors.output_shift);
  operands.query_aligned = is_aligned<T>(tensors.query, problem.query_step);
  operands.key_aligned = is_aligned<T>(tensors.key, problem.key_step);
  // A pack of the value, or of the output, begins at a multiple of four weights.
  const bool whole_packs = problem.weight_channels <= 2 || problem.weight_channels % 4 == 0;
  operands.value_aligned = whole_packs && is_aligned<T>(tensors.value, problem.value_step);
  operands.output_aligned = whole_packs && is_aligned<T>(tensors.output, problem.value_channels);
  operands.norm_aligned = is_aligned<C>(mapping.scale, problem.feature_channels()) &&
                          is_aligned<C>(mapping.shift, problem.feature_channels());
  operands.matrices_aligned = is_aligned<C>(mapping.hidden_weight, problem.weight_channels) &&
                              is_aligned<C>(mapping.weight, problem.weight_channels);
  return operands;
}

static_assert(kPatchwiseWeights == 512 && kPatchwiseValues == 3072 && kPatchwiseTaps == 4095);

// The limits of all implementations.
const char* why_not_limits(const PatchwiseAttention& problem) {
  if (problem.weight_channels > kPatchwiseWeights) return "there are more than 512 weight channels";
  if (problem.value_channels > kPatchwiseValues) return "the value has more than 3072 channels";
  return problem.footprint.taps() > kPatchwiseTaps ? "the footprint has more than 4095 taps" : nullptr;
}

const char* why_not_banded_kernel(PatchwiseAttentionCall& call) {
  const char* const reason = why_not_limits(call.problem);
  return reason ? reason : why_not_banded(call);
}

template <typename T, bool kTensorCores>
const char* plan_tiles(PatchwiseAttentionCall& call) {
  constexpr int kFactorBytes = sizeof(Factor<T, kTensorCores>);
  const auto tiles = kTensorCores ? tensor_core_tiles(kFactorBytes) : multiply_add_tiles(kFactorBytes);
  call.general =
      plan_patchwise_attention(call.problem, tiles, call.device->shared_bytes_of_block, call.device->multiprocessors);
  return call.general.pixels ? nullptr : "a pixel does not fit the registers and shared memory of a block";
}

const char* why_not_tensor_cores(PatchwiseAttentionCall& call) {
  if (const char* const reason = why_not_limits(call.problem)) return reason;
  if (call.element == Element::kFloat64) return "maps are float64";
  if (call.element == Element::kFloat32 && !call.problem.allow_tf32) return "maps are float32 and TF32 is not allowed";
  if (!call.device) return nullptr;
  const char* reason = nullptr;
  dispatch(call.element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    if constexpr (!std::is_same_v<T, double>) {
      reason =
          has_tensor_cores_for<T>(&patchwise_attention_tiles<T, true>) ? plan_tiles<T, true>(call) : kNoTensorCores;
    }
    return cudaSuccess;
  });
  return reason;
}

const char* why_not_multiply_adds(PatchwiseAttentionCall& call) {
  if (const char* const reason = why_not_limits(call.problem)) return reason;
  if (!call.device) return nullptr;
  const char* reason = nullptr;
  dispatch(call.element, [&](auto* null) {
    reason = plan_tiles<std::remove_pointer_t<decltype(null)>, false>(call);
    return cudaSuccess;
  });
  return reason;
}

template <bool kTensorCores>
cudaError_t launch_general(const PatchwiseAttentionCall& call, cudaStream_t stream) {
  const PatchwiseAttentionPlan& plan = call.general;
  FoldedMapping mapping = {};
  if (const cudaError_t error = fold_mapping(call.problem, call.element, *call.tensors, stream, mapping)) return error;
  return dispatch(call.element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    if constexpr (!kTensorCores || !std::is_same_v<T, double>) {
      return launch(&patchwise_attention_tiles<T, kTensorCores>,
                    ceil_div<int64_t>(call.problem.output_pixels(), plan.pixels), kAttentionThreads, plan.shared_bytes,
                    stream, call.problem, plan, operands_of<T>(call.problem, *call.tensors, mapping));
    } else {
      return cudaErrorInvalidValue;
    }
  });
}

const Implementation<PatchwiseAttentionCall> kImplementations[] = {
    {"banded", &why_not_banded_kernel, &launch_banded},
    {"tensor_cores", &why_not_tensor_cores, &launch_general<true>},
    {"multiply_adds", &why_not_multiply_adds, &launch_general<false>},
};

}  // namespace

int64_t patchwise_workspace_bytes(const PatchwiseAttention& problem, Element element) {
  return max(banded_workspace_bytes(problem, element), folded_mapping_bytes(problem, element));
}

cudaError_t launch_patchwise_attention(const PatchwiseAttention& problem, Element element,
                                       const PatchwiseAttentionTensors& tensors, cudaStream_t stream) {
  if (problem.output_pixels() == 0) return cudaSuccess;
  DeviceLimits device = {};
  if (const cudaError_t error = describe_device(device)) return error;
  PatchwiseAttentionCall call = {problem, element, &tensors, &device};
  return launch_first(kImplementations, call, stream);
}

std::string patchwise_attention_implementations(const PatchwiseAttention& problem, Element element) {
  DeviceLimits device = {};
  const bool found = has_device(device);
  PatchwiseAttentionCall call = {problem, element, nullptr, found ? &device : nullptr};
  return describe(kImplementations, call);
}

}  // namespace sa_layers::cuda
