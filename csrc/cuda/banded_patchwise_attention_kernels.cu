// Launcher of patchwise attention as products of banded matrices.

#include "cuda/banded_patch_packing.cuh"
#include "cuda/banded_patchwise_attention.cuh"
#include "cuda/banded_patchwise_attention.h"
#include "cuda/launch.h"

namespace sa_layers::cuda {
namespace {

// Calls body with the widths of the problem, if they have a kernel.
template <typename Body>
void with_patches(const PatchwiseAttention& problem, Element element, const Body& body) {
  if (element != Element::kFloat16 && element != Element::kBFloat16) return;
  if (!falls_on_bands(problem.footprint) || problem.is_product()) return;
  if (problem.value_channels != kSharing * problem.weight_channels) return;
  const auto with_widths = [&](auto patches) {
    if (problem.relation_channels != patches.kChannels || problem.weight_channels != patches.kWeights) return;
    body(patches);
  };
  with_widths(BandedPatches<4, 2>());
  with_widths(BandedPatches<16, 8>());
  with_widths(BandedPatches<32, 16>());
  with_widths(BandedPatches<64, 32>());
  with_widths(BandedPatches<128, 64>());
}

// Whether so many bytes can be read at once, from every pixel.
bool is_aligned(const void* map, int64_t step, int bytes) {
  return reinterpret_cast<uintptr_t>(map) % bytes == 0 && 2 * step % bytes == 0;
}

template <int kKernelWidth, typename T, typename Patches>
cudaError_t launch_patches(const PatchwiseAttention& problem, const PatchwiseAttentionTensors& tensors,
                           cudaStream_t stream, bool& launched) {
  using Limits = BandedPatchLimits<Patches>;
  const auto kernel = &banded_patchwise_attention_tiles<kKernelWidth, T, Patches>;
  bool found = false;
  DeviceLimits device = {};
  if (const cudaError_t error = describe_tensor_core_device(kernel, device, found)) return error;
  if (!found) return cudaSuccess;
  const BandedSizes sizes = {Patches::kKeyStride, Patches::kValueStride, round_up(sizeof(BandedRegion), 16),
                             Patches::kParts * LateBands<T, Patches::kGroup>::kBytes,
                             most_tiles(Limits::kWarps, Patches::kParts)};
  const BandedPlan plan =
      plan_bands(problem.footprint, problem.batch, 1, sizes, Limits::kRegisters * Patches::kParts, device);
  if (plan.row_tiles == 0) return cudaSuccess;
  launched = true;

  const auto numbers = [](const void* tensor) { return static_cast<const float*>(tensor); };
  const PackedPatches packed = pack_of<Patches>(problem.footprint);
  const PatchParameters parameters = {numbers(tensors.scale), numbers(tensors.shift), numbers(tensors.hidden_weight),
                                      numbers(tensors.weight), numbers(tensors.bias)};
  uint32_t* const workspace = static_cast<uint32_t*>(tensors.workspace);
  const cudaError_t error =
      launch_threads(&pack_patches<T, Patches>, packed.words, stream, packed, problem.footprint, parameters, workspace);
  if (error) return error;
  const BandedPatchOperands<T> operands = {static_cast<const T*>(tensors.query), static_cast<const T*>(tensors.key),
                                           static_cast<const T*>(tensors.value), workspace,
                                           numbers(tensors.hidden_bias),         numbers(tensors.output_scale),
                                           numbers(tensors.output_shift),        static_cast<T*>(tensors.output)};
  const int64_t blocks = problem.batch * plan.blocks_down * plan.blocks_across;
  return launch(kernel, blocks, 32 * plan.tiles() * Patches::kParts, plan.shared_bytes, stream, problem, plan, packed,
                operands);
}

}  // namespace

int64_t patchwise_workspace_bytes(const PatchwiseAttention& problem, Element element) {
  int64_t words = 0;
  with_patches(problem, element, [&](auto patches) { words = pack_of<decltype(patches)>(problem.footprint).words; });
  return 4 * words;
}

cudaError_t launch_banded_patchwise_attention(const PatchwiseAttention& problem, Element element,
                                              const PatchwiseAttentionTensors& tensors, cudaStream_t stream,
                                              bool& launched) {
  launched = false;
  cudaError_t error = cudaSuccess;
  with_patches(problem, element, [&](auto patches) {
    using Patches = decltype(patches);
    const int key_bytes = Patches::kChannels < 8 ? 8 : 16;
    if (!tensors.workspace || !is_aligned(tensors.query, problem.query_step, key_bytes) ||
        !is_aligned(tensors.key, problem.key_step, key_bytes) || !is_aligned(tensors.value, problem.value_step, 16) ||
        !is_aligned(tensors.output, 0, 16)) {
      return;
    }
    error = dispatch_half(element, [&](auto* null) {
      using T = std::remove_pointer_t<decltype(null)>;
      constexpr int kWidth = Patches::kUsualWidth;
      const auto launch_it = problem.footprint.columns.kernel == kWidth ? &launch_patches<kWidth, T, Patches>
                                                                        : &launch_patches<0, T, Patches>;
      return launch_it(problem, tensors, stream, launched);
    });
  });
  return error;
}

}  // namespace sa_layers::cuda
