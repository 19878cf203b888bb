// Which maps and layers normed_projection has kernels for, and their launches.

#include "cuda/launch.h"
#include "cuda/normed_projection.cuh"
#include "cuda/normed_projection.h"

namespace sa_layers::cuda {
namespace {

// As many blocks as the device runs at once: each copies the matrix once.
template <typename T, int kEights>
cudaError_t launch_eights(const NormedProjection& problem, cudaStream_t stream, bool& launched) {
  const auto kernel = &normed_projection_tiles<T, kEights>;
  bool found = false;
  DeviceLimits device = {};
  if (const cudaError_t error = describe_tensor_core_device(kernel, device, found)) return error;
  const int64_t bytes = ProjectionMemory<T, kEights>::bytes(problem.channels, kProjectionWarps);
  launched = found && bytes <= device.shared_bytes_of_block;
  const int64_t tiles = (problem.pixels + kNormedPixels - 1) / kNormedPixels,
                wanted = (tiles + kProjectionWarps - 1) / kProjectionWarps;
  const int64_t most = int64_t(projection_blocks(kEights)) * device.multiprocessors,
                blocks = wanted < most ? wanted : most;
  if (!launched) return cudaSuccess;
  const NormedOperands<T> operands = {problem.pixels,
                                      int(problem.channels),
                                      int(tiles),
                                      static_cast<const T*>(problem.features),
                                      static_cast<const T*>(problem.weight),
                                      static_cast<const T*>(problem.bias),
                                      static_cast<const float*>(problem.scale),
                                      static_cast<const float*>(problem.shift),
                                      static_cast<T*>(problem.result)};
  return launch(kernel, blocks, 32 * kProjectionWarps, bytes, stream, operands);
}

}  // namespace

cudaError_t launch_normed_projection(const NormedProjection& problem, Element element, cudaStream_t stream,
                                     bool& launched) {
  constexpr int kMostChannels = 256;  // beyond, products take longer than memory, and those of cuBLAS are faster
  launched = false;
  if (problem.pixels < kNormedPixels || problem.channels == 0 || problem.channels > kMostChannels ||
      problem.channels % kNormedChannels ||
      !fits_strips<__half>(problem.channels, problem.features, problem.weight, problem.result)) {
    return cudaSuccess;
  }
  return dispatch_half(element, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    switch (problem.out_channels) {
      case 24:
        return launch_eights<T, 3>(problem, stream, launched);
      case 48:
        return launch_eights<T, 6>(problem, stream, launched);
      case 96:
        return launch_eights<T, 12>(problem, stream, launched);
      default:
        return cudaSuccess;
    }
  });
}

}  // namespace sa_layers::cuda
