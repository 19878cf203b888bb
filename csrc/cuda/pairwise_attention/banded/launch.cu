// Eligibility and launch of the banded kernel of pairwise attention.

#include <cstdint>
#include <type_traits>

#include "cuda/banded/plan.h"
#include "cuda/common/launch.cuh"
#include "cuda/pairwise_attention/banded/kernel.cuh"
#include "cuda/pairwise_attention/pairs.cuh"
#include "cuda/pairwise_attention/plan.h"
#include "cuda/pairwise_attention/problem.h"
#include "footprint.h"

namespace sa_layers::cuda {
namespace {

// Calls body(mapping) with the widths that have a kernel.
template <typename Body>
auto with_mapping(int channels, const Body& body) -> decltype(body(BandedMapping<4, 2>())) {
  switch (channels) {
    case 4:
      return body(BandedMapping<4, 2>());
    case 16:
      return body(BandedMapping<16, 8>());
    case 32:
      return body(BandedMapping<32, 16>());
    case 64:
      return body(BandedMapping<64, 16>());
    case 128:
      return body(BandedMapping<128, 16>());
    default:
      return {};
  }
}

template <typename T, typename Mapping>
auto kernel_of(const PairwiseAttention& problem) {
  constexpr int kWidth = Mapping::kUsualWidth;
  return problem.footprint.columns.kernel == kWidth ? &banded_pairwise_attention_tiles<T, Mapping, kWidth>
                                                    : &banded_pairwise_attention_tiles<T, Mapping, 0>;
}

const char* why_not_shape(const PairwiseAttention& problem, Element element) {
  if (!is_half(element)) return "maps are not float16 or bfloat16";
  if (const char* const reason = why_not_banded_footprint(problem.footprint)) return reason;
  if (problem.relation != Relation::kSubtraction && problem.relation != Relation::kSummation) {
    return "the relation is not subtraction or summation";
  }
  if (problem.layers != 2) return "the mapping does not have two layers";
  if (problem.positions > 2) return "there are more than 2 position channels";
  if (problem.widths[1] != problem.channels) return "the hidden layer is not as wide as the query";
  if (problem.value_channels != kSharing * problem.weight_channels()) {
    return "a weight is not shared by 8 channels of the value";
  }
  const int weights = problem.weight_channels();
  const bool has_widths = with_mapping(problem.channels, [&](auto mapping) {
    using Mapping = decltype(mapping);
    return weights % Mapping::kAllWeights == 0 && (Mapping::kWeights >= 8 || weights == Mapping::kWeights);
  });
  return has_widths ? nullptr : "the query and the weights do not have the widths of a SAN";
}

// Whether the pixels of a map are aligned to packs of so many channels.
bool is_aligned_to(const void* map, const MapSteps& steps, int channels) {
  return reinterpret_cast<uintptr_t>(map) % (2 * channels) == 0 && steps.image % channels == 0 &&
         steps.row % channels == 0 && steps.pixel % channels == 0;
}

const char* why_not_tensors(const PairwiseAttention& problem, const PairwiseAttentionTensors& tensors) {
  const bool aligned = is_aligned_to(tensors.query, problem.query_steps, 2) &&
                       is_aligned_to(tensors.key, problem.key_steps, min(problem.channels, 8)) &&
                       is_aligned_to(tensors.value, problem.value_steps, 8);
  return aligned ? nullptr : "a map is not aligned to 16 bytes";
}

template <typename T, typename Mapping>
const char* make_plan(PairwiseAttentionCall& call) {
  using Limits = BandedLimits<Mapping>;
  const PairwiseAttention& problem = call.problem;
  if (!has_tensor_cores_for<__nv_bfloat16>(kernel_of<T, Mapping>(problem))) return kNoTensorCores;
  const BandedSizes sizes = {Mapping::kKeyStride, Mapping::kValueStride, Mapping::kBytes, kTileBytes<T, Mapping>,
                             most_tiles(Limits::kWarps, Mapping::kParts)};
  call.banded = plan_bands(problem.footprint, problem.batch, problem.weight_channels() / Mapping::kAllWeights, sizes,
                           Limits::kRegisters * Mapping::kParts, *call.device);
  return call.banded.row_tiles ? nullptr : "a tile does not fit the shared memory of a block";
}

}  // namespace

const char* why_not_banded(PairwiseAttentionCall& call) {
  if (const char* const reason = why_not_shape(call.problem, call.element)) return reason;
  if (call.tensors) {
    if (const char* const reason = why_not_tensors(call.problem, *call.tensors)) return reason;
  }
  if (!call.device) return nullptr;
  return with_mapping(call.problem.channels, [&](auto mapping) {
    using Mapping = decltype(mapping);
    return call.element == Element::kFloat16 ? make_plan<__half, Mapping>(call)
                                             : make_plan<__nv_bfloat16, Mapping>(call);
  });
}

cudaError_t launch_banded(const PairwiseAttentionCall& call, cudaStream_t stream) {
  return with_mapping(call.problem.channels, [&](auto mapping) {
    using Mapping = decltype(mapping);
    return dispatch_half(call.element, [&](auto* null) {
      using T = std::remove_pointer_t<decltype(null)>;
      const BandedPlan& plan = call.banded;
      const int64_t blocks = call.problem.batch * plan.blocks_down * plan.blocks_across * plan.groups;
      return launch(kernel_of<T, Mapping>(call.problem), blocks, 32 * plan.tiles() * Mapping::kParts, plan.shared_bytes,
                    stream, call.problem, plan, operands_of<T>(call.problem, *call.tensors));
    });
  });
}

}  // namespace sa_layers::cuda
