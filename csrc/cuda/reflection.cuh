// Reflection in 32-bit arithmetic without a division, as often as the tiled kernels need it.
#pragma once

#include <cuda_runtime.h>

namespace sa_layers::cuda {

// sa_layers::reflect() of footprint.h. The loop ends at once, except on maps smaller than the footprint.
__device__ inline int bounce(int index, int size) {
  if (size == 1) return 0;
  while (index < 0 || index >= size) index = index < 0 ? -index : 2 * (size - 1) - index;
  return index;
}

// The positions from -padding to size - 1 + padding that show a pixel by reflection, in ascending order:
//   for (Images images(...); images.left(); images.next()) use(images.position);
// They lie twice the pixel's distance from either border apart, in turn.
struct Images {
  int position, up, down, end;

  __device__ Images(int pixel, int size, int padding)
      : position(pixel), up(2 * (size - 1 - pixel)), down(2 * pixel), end(size + padding) {
    if (up == 0 || down == 0) {  // a border pixel is its own mirror image
      up = down = size > 1 ? 2 * (size - 1) : 1;
    }
    while (position - down >= -padding) {
      position -= down;
      turn();
    }
  }
  __device__ bool left() const { return position < end; }
  __device__ void next() {
    position += up;
    turn();
  }
  __device__ void turn() {
    const int last_up = up;
    up = down;
    down = last_up;
  }
};

}  // namespace sa_layers::cuda
