// Chooses between the tiled and the general kernels of aggregation, with or without a softmax, and launches them.
#pragma once

#include <initializer_list>
#include <type_traits>

#include "cuda/aggregation_anywhere.cuh"
#include "cuda/aggregation_tiles.cuh"
#include "cuda/aggregation_value_gradient_tiles.cuh"
#include "cuda/aggregation_weight_gradient_tiles.cuh"
#include "cuda/launch.h"

namespace sa_layers::cuda {

// Whether the tiled kernels, which are there for all types but float64, can do this problem.
inline bool has_tiles(const Aggregation& problem) {
  const Axis &rows = problem.footprint.rows, &columns = problem.footprint.columns;
  const bool dense = rows.stride == 1 && columns.stride == 1 && rows.dilation == 1 && columns.dilation == 1;
  const bool square = rows.kernel == columns.kernel && rows.kernel >= 3 && rows.kernel <= 7;
  // Offsets inside a weight map and products of a side's size are computed in 32 bits.
  const bool fits = rows.size < 1 << 15 && columns.size < 1 << 15 &&
                    problem.footprint.taps() * problem.footprint.pixels() <= INT32_MAX;
  return dense && square && fits && problem.channels > 0 && problem.batch > 0;
}

// Whether every group of four pixels of a row can be loaded at once.
template <typename T>
bool is_aligned(const Aggregation& problem, std::initializer_list<const void*> tensors) {
  bool aligned = problem.footprint.columns.size % kGroup == 0;
  for (const void* tensor : tensors) aligned = aligned && reinterpret_cast<uintptr_t>(tensor) % sizeof(Quad<T>) == 0;
  return aligned;
}

// A tiling for type T, of no threads where there is none.
template <typename T>
AggregationTiles make_tiles(const Aggregation& problem, bool by_rows, int flank, int64_t channels_at_once) {
  if (std::is_same_v<T, double> || !has_tiles(problem)) return {};
  const Footprint& footprint = problem.footprint;
  const int64_t sharing = problem.sharing(0), channels = sharing < channels_at_once ? sharing : channels_at_once;
  return {make_tiling(int(footprint.rows.size), int(footprint.columns.size), int(footprint.rows.kernel), by_rows, flank,
                      problem.weight_maps(), int(channels)),
          Channels{problem.channels, problem.weight_channels, footprint.pixels()}, int(sharing),
          footprint.mode == Padding::kReflect};
}

// Launches the kernel tiled(size of the footprint, as a type) if there is a tiling, else the general one.
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
                                      const void* weight, void* output, void* logsumexp, cudaStream_t stream) {
  return dispatch(element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    const bool aligned = is_aligned<T>(problem, {value, weight, output}) && is_aligned<float>(problem, {logsumexp});
    return launch_either<T>(
        problem, make_tiles<T>(problem, aligned, 0, kChannels),
        [](auto kernel) { return &aggregation_tiles<T, kernel.value, kSoftmax>; }, &aggregation_anywhere<T, kSoftmax>,
        Work::threads(problem, problem.footprint.output_pixels()), stream, static_cast<const T*>(value),
        static_cast<const T*>(weight), static_cast<T*>(output), static_cast<Compute<T>*>(logsumexp));
  });
}

template <bool kSoftmax>
cudaError_t launch_value_gradient_kernel(const Aggregation& problem, Element element, const void* grad_output,
                                         const void* weight, const void* logsumexp, void* grad_value,
                                         cudaStream_t stream) {
  return dispatch(element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    const int flank = problem.footprint.mode == Padding::kReflect ? int(problem.footprint.rows.padding()) : 0;
    return launch_either<T>(
        problem, make_tiles<T>(problem, false, flank, kChannels),
        [](auto kernel) { return &aggregation_value_gradient_tiles<T, kernel.value, kSoftmax>; },
        &aggregation_value_gradient_anywhere<T, kSoftmax>, Work::threads(problem, problem.footprint.pixels()), stream,
        SoftmaxTensors<T>{nullptr, nullptr, static_cast<const Compute<T>*>(logsumexp)},
        static_cast<const T*>(grad_output), static_cast<const T*>(weight), static_cast<T*>(grad_value));
  });
}

template <bool kSoftmax>
cudaError_t launch_weight_gradient_kernel(const Aggregation& problem, Element element, const void* grad_output,
                                          const void* value, const void* logits, const void* output,
                                          const void* logsumexp, void* grad_weight, cudaStream_t stream) {
  return dispatch(element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    const bool aligned = is_aligned<T>(problem, {grad_output, value, logits, output, grad_weight}) &&
                         is_aligned<float>(problem, {logsumexp});
    return launch_either<T>(
        problem, make_tiles<T>(problem, aligned, 0, problem.sharing(0)),
        [](auto kernel) { return &aggregation_weight_gradient_tiles<T, kernel.value, kSoftmax>; },
        &aggregation_weight_gradient_anywhere<T, kSoftmax>,
        problem.weight_maps() * problem.footprint.taps() * problem.footprint.output_pixels(), stream,
        SoftmaxTensors<T>{static_cast<const T*>(logits), static_cast<const T*>(output),
                          static_cast<const Compute<T>*>(logsumexp)},
        static_cast<const T*>(grad_output), static_cast<const T*>(value), static_cast<T*>(grad_weight));
  });
}

}  // namespace sa_layers::cuda
