// Launcher of pairwise attention as products of banded matrices.

#include "cuda/banded_pairwise_attention.cuh"
#include "cuda/banded_pairwise_attention.h"
#include "cuda/launch.h"
#include "cuda/pairwise_operands.cuh"

namespace sa_layers::cuda {
namespace {

// Whether so many channels of every pixel can be read at once.
bool is_aligned_to(const void* map, const MapSteps& steps, int channels) {
  return reinterpret_cast<uintptr_t>(map) % (2 * channels) == 0 && steps.image % channels == 0 &&
         steps.row % channels == 0 && steps.pixel % channels == 0;
}

bool has_kernel(const PairwiseAttention& problem, const PairwiseAttentionTensors& tensors) {
  const bool adds = problem.relation == Relation::kSubtraction || problem.relation == Relation::kSummation;
  return falls_on_bands(problem.footprint) && adds && problem.layers == 2 && problem.positions <= 2 &&
         problem.widths[1] == problem.channels && problem.value_channels == kSharing * problem.weight_channels() &&
         is_aligned_to(tensors.query, problem.query_steps, 2) &&
         is_aligned_to(tensors.key, problem.key_steps, problem.channels < 8 ? problem.channels : 8) &&
         is_aligned_to(tensors.value, problem.value_steps, 8);
}

template <typename T, typename Mapping>
cudaError_t launch_mapping(const PairwiseAttention& problem, const PairwiseAttentionTensors& tensors,
                           cudaStream_t stream, bool& launched) {
  using Limits = BandedLimits<Mapping>;
  constexpr int kWidth = Mapping::kUsualWidth;
  const auto kernel = problem.footprint.columns.kernel == kWidth ? &banded_pairwise_attention_tiles<T, Mapping, kWidth>
                                                                 : &banded_pairwise_attention_tiles<T, Mapping, 0>;
  const int all_weights = problem.weight_channels();
  if (all_weights % Mapping::kAllWeights) return cudaSuccess;
  if (Mapping::kWeights < 8 && all_weights != Mapping::kWeights) return cudaSuccess;
  bool found = false;
  DeviceLimits device = {};
  if (const cudaError_t error = describe_tensor_core_device(kernel, device, found)) return error;
  if (!found) return cudaSuccess;
  const BandedSizes sizes = {Mapping::kKeyStride, Mapping::kValueStride, Mapping::kBytes, kTileBytes<T, Mapping>,
                             most_tiles(Limits::kWarps, Mapping::kParts)};
  const int groups = all_weights / Mapping::kAllWeights;
  const BandedPlan plan =
      plan_bands(problem.footprint, problem.batch, groups, sizes, Limits::kRegisters * Mapping::kParts, device);
  if (plan.row_tiles == 0) return cudaSuccess;
  launched = true;
  const int64_t blocks = problem.batch * plan.blocks_down * plan.blocks_across * groups;
  return launch(kernel, blocks, 32 * plan.tiles() * Mapping::kParts, plan.shared_bytes, stream, problem, plan,
                operands_of<T>(problem, tensors));
}

template <typename T>
cudaError_t launch_widths(const PairwiseAttention& problem, const PairwiseAttentionTensors& tensors,
                          cudaStream_t stream, bool& launched) {
  switch (problem.channels) {
    case 4:
      return launch_mapping<T, BandedMapping<4, 2>>(problem, tensors, stream, launched);
    case 16:
      return launch_mapping<T, BandedMapping<16, 8>>(problem, tensors, stream, launched);
    case 32:
      return launch_mapping<T, BandedMapping<32, 16>>(problem, tensors, stream, launched);
    case 64:
      return launch_mapping<T, BandedMapping<64, 16>>(problem, tensors, stream, launched);
    case 128:
      return launch_mapping<T, BandedMapping<128, 16>>(problem, tensors, stream, launched);
    default:
      return cudaSuccess;
  }
}

}  // namespace

cudaError_t launch_banded_pairwise_attention(const PairwiseAttention& problem, Element element,
                                             const PairwiseAttentionTensors& tensors, cudaStream_t stream,
                                             bool& launched) {
  launched = false;
  if (!has_kernel(problem, tensors)) return cudaSuccess;
  return dispatch_half(element, [&](auto* null) {
    return launch_widths<std::remove_pointer_t<decltype(null)>>(problem, tensors, stream, launched);
  });
}

}  // namespace sa_layers::cuda
