// Eligibility and launch of the banded kernel of patchwise attention.

#include <cstdint>
#include <type_traits>

#include "cuda/banded/bands.cuh"
#include "cuda/banded/plan.h"
#include "cuda/banded/region.cuh"
#include "cuda/common/launch.cuh"
#include "cuda/patchwise_attention/banded/kernel.cuh"
#include "cuda/patchwise_attention/banded/packing.cuh"
#include "cuda/patchwise_attention/parameters.cuh"
#include "cuda/patchwise_attention/plan.h"
#include "cuda/patchwise_attention/problem.h"
#include "footprint.h"

namespace sa_layers::cuda {
namespace {

// Calls body(patches) with the widths that have a kernel.
template <typename Body>
auto with_patches(const PatchwiseAttention& problem, const Body& body) -> decltype(body(BandedPatches<4, 2>())) {
  const auto has_widths = [&](int channels, int weights) {
    return problem.relation_channels == channels && problem.weight_channels == weights;
  };
  if (has_widths(4, 2)) return body(BandedPatches<4, 2>());
  if (has_widths(16, 8)) return body(BandedPatches<16, 8>());
  if (has_widths(32, 16)) return body(BandedPatches<32, 16>());
  if (has_widths(64, 32)) return body(BandedPatches<64, 32>());
  if (has_widths(128, 64)) return body(BandedPatches<128, 64>());
  return {};
}

template <typename T, typename Patches>
auto kernel_of(const PatchwiseAttention& problem) {
  constexpr int kWidth = Patches::kUsualWidth;
  return problem.footprint.columns.kernel == kWidth ? &banded_patchwise_attention_tiles<kWidth, T, Patches>
                                                    : &banded_patchwise_attention_tiles<0, T, Patches>;
}

const char* why_not_shape(const PatchwiseAttention& problem, Element element) {
  if (!is_half(element)) return "maps are not float16 or bfloat16";
  if (const char* const reason = why_not_banded_footprint(problem.footprint)) return reason;
  if (problem.is_product()) return "the relation is not concatenation";
  if (problem.value_channels != kSharing * problem.weight_channels) {
    return "a weight is not shared by 8 channels of the value";
  }
  const bool has_widths = with_patches(problem, [](auto) { return true; });
  return has_widths ? nullptr : "the query and the weights do not have the widths of a SAN";
}

// Whether the pixels of a map are aligned to so many bytes.
bool is_aligned_to(const void* map, int64_t step, int bytes) {
  return reinterpret_cast<uintptr_t>(map) % bytes == 0 && 2 * step % bytes == 0;
}

const char* why_not_tensors(const PatchwiseAttention& problem, const PatchwiseAttentionTensors& tensors) {
  const int key_bytes = problem.relation_channels < 8 ? 8 : 16;
  const bool aligned = is_aligned_to(tensors.query, problem.query_step, key_bytes) &&
                       is_aligned_to(tensors.key, problem.key_step, key_bytes) &&
                       is_aligned_to(tensors.value, problem.value_step, 16) && is_aligned_to(tensors.output, 0, 16);
  return aligned ? nullptr : "a map is not aligned to 16 bytes";
}

template <typename T, typename Patches>
const char* make_plan(PatchwiseAttentionCall& call) {
  using Limits = BandedPatchLimits<Patches>;
  const PatchwiseAttention& problem = call.problem;
  if (!has_tensor_cores_for<__nv_bfloat16>(kernel_of<T, Patches>(problem))) return kNoTensorCores;
  const BandedSizes sizes = {Patches::kKeyStride, Patches::kValueStride, round_up(sizeof(BandedRegion), 16),
                             Patches::kParts * LateBands<T, Patches::kGroup>::kBytes,
                             most_tiles(Limits::kWarps, Patches::kParts)};
  call.banded =
      plan_bands(problem.footprint, problem.batch, 1, sizes, Limits::kRegisters * Patches::kParts, *call.device);
  return call.banded.row_tiles ? nullptr : "a tile does not fit the shared memory of a block";
}

// Packs the mapping into the workspace, then launches the kernel.
template <typename T, typename Patches>
cudaError_t launch_patches(const PatchwiseAttentionCall& call, cudaStream_t stream) {
  const PatchwiseAttention& problem = call.problem;
  const PatchwiseAttentionTensors& tensors = *call.tensors;
  const BandedPlan& plan = call.banded;
  const auto numbers = [](const void* tensor) { return static_cast<const float*>(tensor); };
  const PackedPatches packed = pack_of<Patches>(problem.footprint);
  const PatchwiseParameters<T> parameters = {problem, tensors};
  uint32_t* const workspace = static_cast<uint32_t*>(tensors.workspace);
  const cudaError_t error = launch_threads(&pack_patches<T, Patches>, packed.words + Patches::kWeights, stream, packed,
                                           parameters, workspace);
  if (error) return error;
  const BandedPatchOperands<T> operands = {static_cast<const T*>(tensors.query), static_cast<const T*>(tensors.key),
                                           static_cast<const T*>(tensors.value), workspace,
                                           numbers(workspace + packed.words),    numbers(tensors.output_scale),
                                           numbers(tensors.output_shift),        static_cast<T*>(tensors.output)};
  const int64_t blocks = problem.batch * plan.blocks_down * plan.blocks_across;
  return launch(kernel_of<T, Patches>(problem), blocks, 32 * plan.tiles() * Patches::kParts, plan.shared_bytes, stream,
                problem, plan, packed, operands);
}

}  // namespace

int64_t banded_workspace_bytes(const PatchwiseAttention& problem, Element element) {
  if (why_not_shape(problem, element)) return 0;
  return with_patches(problem, [&](auto patches) {
    return 4 * (int64_t(pack_of<decltype(patches)>(problem.footprint).words) + problem.weight_channels);
  });
}

const char* why_not_banded(PatchwiseAttentionCall& call) {
  if (const char* const reason = why_not_shape(call.problem, call.element)) return reason;
  if (call.tensors) {
    if (const char* const reason = why_not_tensors(call.problem, *call.tensors)) return reason;
  }
  if (!call.device) return nullptr;
  return with_patches(call.problem, [&](auto patches) {
    using Patches = decltype(patches);
    return call.element == Element::kFloat16 ? make_plan<__half, Patches>(call)
                                             : make_plan<__nv_bfloat16, Patches>(call);
  });
}

cudaError_t launch_banded(const PatchwiseAttentionCall& call, cudaStream_t stream) {
  return with_patches(call.problem, [&](auto patches) {
    return dispatch_half(call.element, [&](auto* null) {
      return launch_patches<std::remove_pointer_t<decltype(null)>, decltype(patches)>(call, stream);
    });
  });
}

}  // namespace sa_layers::cuda
