// Chooses between the tiled and the general kernels of aggregation, with or without a softmax, and launches them.

#include <initializer_list>
#include <type_traits>

#include "cuda/aggregation/forward_tiles.cuh"
#include "cuda/aggregation/general.cuh"
#include "cuda/aggregation/launch.h"
#include "cuda/aggregation/value_gradient_tiles.cuh"
#include "cuda/aggregation/weight_gradient_tiles.cuh"
#include "cuda/common/launch.cuh"
#include "cuda/common/pack.cuh"

namespace sa_layers::cuda {

namespace {

// Whether the tiled kernels, which exist for all types but float64, are eligible.
inline bool has_tiles(const Aggregation& problem) {
  const Axis &rows = problem.footprint.rows, &columns = problem.footprint.columns;
  const bool dense = rows.stride == 1 && columns.stride == 1 && rows.dilation == 1 && columns.dilation == 1;
  const bool square = rows.kernel == columns.kernel && rows.kernel >= 3 && rows.kernel <= 7;
  // Offsets inside a weight map and products of a side's size must fit 32 bits.
  const bool fits = rows.size < 1 << 15 && columns.size < 1 << 15 &&
                    problem.footprint.taps() * problem.footprint.pixels() <= INT32_MAX;
  return dense && square && fits && problem.footprint.mode != Padding::kClamp && problem.channels > 0 &&
         problem.batch > 0;
}

// Whether rows are aligned to groups of four pixels.
template <typename T>
bool is_aligned(const Aggregation& problem, std::initializer_list<const void*> tensors) {
  bool aligned = problem.footprint.columns.size % kGroup == 0;
  for (const void* tensor : tensors) aligned = aligned && reinterpret_cast<uintptr_t>(tensor) % sizeof(Pack<T, 4>) == 0;
  return aligned;
}

// A tiling for type T; of no threads if the tiled kernels are not eligible.
template <typename T>
AggregationTiles make_tiles(const Aggregation& problem, bool by_rows, int flank, int64_t channels_at_once) {
  if (std::is_same_v<T, double> || !has_tiles(problem)) return {};
  const Footprint& footprint = problem.footprint;
  const int64_t sharing = problem.sharing(0), channels = sharing < channels_at_once ? sharing : channels_at_once;
  return {make_tiling(int(footprint.rows.size), int(footprint.columns.size), int(footprint.rows.kernel), by_rows, flank,
                      problem.weight_maps(), int(channels)),
          Channels{problem.channels, problem.weight_channels, footprint.pixels(), problem.first_channel(1),
                   problem.channel_step()},
          int(sharing), footprint.mode == Padding::kReflect};
}

// Launches the tiled kernel for the kernel size if there is a tiling, otherwise the general one.
template <typename T, typename Tiled, typename General, typename... Tensors>
cudaError_t launch_either(const Aggregation& problem, const AggregationTiles& tiles, const Tiled& tiled,
                          const General& general, int64_t general_threads, cudaStream_t stream,
                          const Tensors&... tensors) {
  const Tiling& tiling = tiles.tiling;
  if constexpr (!std::is_same_v<T, double>) {
    if (tiling.threads() > 0) {
      const auto launch_tiles = [&](auto kernel) {
        return launch(tiled(kernel), tiling.blocks(), tiling.threads(), tiling.shared_bytes(), stream, tiles,
                      tensors...);
      };
      switch (problem.footprint.rows.kernel) {
        case 3:
          return launch_tiles(std::integral_constant<int, 3>{});
        case 5:
          return launch_tiles(std::integral_constant<int, 5>{});
        default:
          return launch_tiles(std::integral_constant<int, 7>{});
      }
    }
  }
  return launch_threads(general, general_threads, stream, problem, general_threads, tensors...);
}

template <bool kSoftmax>
cudaError_t launch_aggregation_kernel(const Aggregation& problem, Element element, const void* value,
                                      const void* weight, void* output, void* max_logits, void* normalizers,
                                      cudaStream_t stream) {
  return dispatch(element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    const bool aligned =
        is_aligned<T>(problem, {value, weight, output}) && is_aligned<float>(problem, {max_logits, normalizers});
    return launch_either<T>(
        problem, make_tiles<T>(problem, aligned, 0, kChannels),
        [](auto kernel) { return &aggregation_tiles<T, kernel.value, kSoftmax>; }, &aggregation_general<T, kSoftmax>,
        Work::threads(problem, problem.footprint.output_pixels()), stream, static_cast<const T*>(value),
        static_cast<const T*>(weight), static_cast<T*>(output), static_cast<Compute<T>*>(max_logits),
        static_cast<Compute<T>*>(normalizers));
  });
}

template <bool kSoftmax>
cudaError_t launch_value_gradient_kernel(const Aggregation& problem, Element element, const void* grad_output,
                                         const void* weight, const void* max_logits, const void* normalizers,
                                         void* grad_value, cudaStream_t stream) {
  return dispatch(element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    const int flank = problem.footprint.mode == Padding::kReflect ? int(problem.footprint.rows.padding()) : 0;
    return launch_either<T>(
        problem, make_tiles<T>(problem, false, flank, kChannels),
        [](auto kernel) { return &aggregation_value_gradient_tiles<T, kernel.value, kSoftmax>; },
        &aggregation_value_gradient_general<T, kSoftmax>, Work::threads(problem, problem.footprint.pixels()), stream,
        SoftmaxTensors<T>{nullptr, static_cast<const Compute<T>*>(max_logits),
                          static_cast<const Compute<T>*>(normalizers)},
        static_cast<const T*>(grad_output), static_cast<const T*>(weight), static_cast<T*>(grad_value));
  });
}

template <bool kSoftmax>
cudaError_t launch_weight_gradient_kernel(const Aggregation& problem, Element element, const void* grad_output,
                                          const void* value, const void* logits, const void* max_logits,
                                          const void* normalizers, void* grad_weight, cudaStream_t stream) {
  return dispatch(element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    const bool aligned = is_aligned<T>(problem, {grad_output, value, logits, grad_weight}) &&
                         is_aligned<float>(problem, {max_logits, normalizers});
    return launch_either<T>(
        problem, make_tiles<T>(problem, aligned, 0, problem.sharing(0)),
        [](auto kernel) { return &aggregation_weight_gradient_tiles<T, kernel.value, kSoftmax>; },
        &aggregation_weight_gradient_general<T, kSoftmax>,
        problem.weight_maps() * (kSoftmax ? 1 : problem.footprint.taps()) * problem.footprint.output_pixels(), stream,
        SoftmaxTensors<T>{static_cast<const T*>(logits), static_cast<const Compute<T>*>(max_logits),
                          static_cast<const Compute<T>*>(normalizers)},
        static_cast<const T*>(grad_output), static_cast<const T*>(value), static_cast<T*>(grad_weight));
  });
}

}  // namespace

cudaError_t launch_aggregation(const Aggregation& problem, Element element, const void* value, const void* weight,
                               void* output, cudaStream_t stream) {
  return launch_aggregation_kernel<false>(problem, element, value, weight, output, nullptr, nullptr, stream);
}

cudaError_t launch_aggregation_value_gradient(const Aggregation& problem, Element element, const void* grad_output,
                                              const void* weight, void* grad_value, cudaStream_t stream) {
  return launch_value_gradient_kernel<false>(problem, element, grad_output, weight, nullptr, nullptr, grad_value,
                                             stream);
}

cudaError_t launch_aggregation_weight_gradient(const Aggregation& problem, Element element, const void* grad_output,
                                               const void* value, void* grad_weight, cudaStream_t stream) {
  return launch_weight_gradient_kernel<false>(problem, element, grad_output, value, nullptr, nullptr, nullptr,
                                              grad_weight, stream);
}

cudaError_t launch_softmax_aggregation(const Aggregation& problem, Element element, const void* value,
                                       const void* logits, void* output, void* max_logits, void* normalizers,
                                       cudaStream_t stream) {
  return launch_aggregation_kernel<true>(problem, element, value, logits, output, max_logits, normalizers, stream);
}

cudaError_t launch_softmax_aggregation_value_gradient(const Aggregation& problem, Element element,
                                                      const void* grad_output, const void* logits,
                                                      const void* max_logits, const void* normalizers, void* grad_value,
                                                      cudaStream_t stream) {
  return launch_value_gradient_kernel<true>(problem, element, grad_output, logits, max_logits, normalizers, grad_value,
                                            stream);
}

cudaError_t launch_softmax_aggregation_logits_gradient(const Aggregation& problem, Element element,
                                                       const void* grad_output, const void* value, const void* logits,
                                                       const void* max_logits, const void* normalizers,
                                                       void* grad_logits, cudaStream_t stream) {
  return launch_weight_gradient_kernel<true>(problem, element, grad_output, value, logits, max_logits, normalizers,
                                             grad_logits, stream);
}

}  // namespace sa_layers::cuda
