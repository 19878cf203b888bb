// Aggregation as plainly as possible, in float64.
#pragma once

#include <cstdint>
#include <vector>

namespace reference {

struct Problem {
  int batch, channels, weight_channels, height, width;
  int kernel[2], stride[2], dilation[2];
  bool reflecting;
  bool clamped = false;     // instead of padding
  bool contiguous = false;  // groups of channels

  int output_height() const { return (height - 1) / stride[0] + 1; }
  int output_width() const { return (width - 1) / stride[1] + 1; }
  int64_t value_size() const { return int64_t(batch) * channels * height * width; }
  int64_t output_size() const { return int64_t(batch) * channels * output_height() * output_width(); }
  int64_t weight_size() const {
    return int64_t(batch) * weight_channels * kernel[0] * kernel[1] * output_height() * output_width();
  }
};

// The pixel at a padded index: walks |index| steps from pixel 0 and turns at both borders; -1 without reflection.
inline int walk(int index, int size, bool reflecting) {
  if (index >= 0 && index < size) return index;
  if (!reflecting) return -1;
  int position = 0, direction = 1;
  for (int steps = index < 0 ? -index : index; steps > 0 && size > 1; --steps) {
    if (position + direction < 0 || position + direction >= size) direction = -direction;
    position += direction;
  }
  return position;
}

// The first pixel of the window of a pixel: of all windows on the axis, the one whose centre is nearest.
inline int nearest_window(int pixel, int size, int kernel, int dilation) {
  const int reach = (kernel - 1) * dilation;
  int nearest = -1, distance = 0;
  for (int first = pixel % dilation; first + reach < size; first += dilation) {
    const int centre = first + kernel / 2 * dilation, apart = centre < pixel ? pixel - centre : centre - pixel;
    if (nearest < 0 || apart < distance) nearest = first, distance = apart;
  }
  return nearest;
}

// The pixel along an axis that a tap of an output pixel reads, or -1 for a zero.
inline int source(const Problem& p, int axis, int output, int tap) {
  const int size = axis == 0 ? p.height : p.width, centre = output * p.stride[axis];
  if (p.clamped) return nearest_window(centre, size, p.kernel[axis], p.dilation[axis]) + tap * p.dilation[axis];
  return walk(centre + (tap - p.kernel[axis] / 2) * p.dilation[axis], size, p.reflecting);
}

// Calls body(value index, weight index, output index) for every product of the sum; the value index is -1 for a zero.
template <typename Body>
void for_each_product(const Problem& p, const Body& body) {
  const int rows = p.output_height(), columns = p.output_width();
  for (int n = 0; n < p.batch; ++n)
    for (int c = 0; c < p.channels; ++c) {
      const int weight = p.contiguous ? c / (p.channels / p.weight_channels) : c % p.weight_channels;
      for (int row = 0; row < rows; ++row)
        for (int column = 0; column < columns; ++column)
          for (int i = 0; i < p.kernel[0]; ++i)
            for (int j = 0; j < p.kernel[1]; ++j) {
              const int y = source(p, 0, row, i), x = source(p, 1, column, j);
              const int64_t map = int64_t(n) * p.channels + c;
              const int64_t tap = int64_t(n) * p.weight_channels + weight;
              body(y < 0 || x < 0 ? -1 : (map * p.height + y) * p.width + x,
                   ((tap * p.kernel[0] * p.kernel[1] + i * p.kernel[1] + j) * rows + row) * columns + column,
                   (map * rows + row) * columns + column);
            }
    }
}

}  // namespace reference
