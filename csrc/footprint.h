// Footprint geometry (which input pixels the taps of an output pixel read), and the problem descriptions that operators
// share, without tensors. Plain C++ for bindings and kernels, host and device.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define SA_LAYERS_HOST_DEVICE __host__ __device__
#else
#define SA_LAYERS_HOST_DEVICE
#endif

namespace sa_layers {

template <typename T>
SA_LAYERS_HOST_DEVICE constexpr T min(T a, T b) {
  return a < b ? a : b;
}
template <typename T>
SA_LAYERS_HOST_DEVICE constexpr T max(T a, T b) {
  return a > b ? a : b;
}
// For integers of two types, such as max(1, channels).
SA_LAYERS_HOST_DEVICE constexpr int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
SA_LAYERS_HOST_DEVICE constexpr int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
// For non-negative integers. Axis and Aggregation write it out, which keeps the machine code of the CUDA kernels.
template <typename T>
SA_LAYERS_HOST_DEVICE constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}
SA_LAYERS_HOST_DEVICE constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
SA_LAYERS_HOST_DEVICE constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
// The smallest power of two that is at least a positive integer, as its exponent.
SA_LAYERS_HOST_DEVICE constexpr int ceil_log2(int64_t a) {
  int exponent = 0;
  while (int64_t{1} << exponent < a) ++exponent;
  return exponent;
}

// Under kClamp nothing lies beyond the border: a window that would reach over it is moved inwards.
enum class Padding { kReflect, kZeros, kClamp };

// Reflects an index at both borders of a map until it lies inside, as numpy.pad(mode="reflect") does: the border pixel
// is not repeated, and the pattern has the period 2 * (size - 1). A map of one pixel repeats that pixel.
SA_LAYERS_HOST_DEVICE inline int64_t reflect(int64_t index, int64_t size) {
  if (index >= 0 && index < size) return index;
  if (size == 1) return 0;
  const int64_t period = 2 * (size - 1);
  index %= period;
  if (index < 0) index += period;
  return index < size ? index : period - index;
}

// One direction of a footprint. The padding keeps the size at stride 1, which needs an odd kernel.
struct Axis {
  int64_t size;  // of the input map
  int64_t kernel;
  int64_t stride;
  int64_t dilation;

  SA_LAYERS_HOST_DEVICE int64_t reach() const { return dilation * (kernel - 1); }  // from the first to the last tap
  SA_LAYERS_HOST_DEVICE int64_t padding() const { return reach() / 2; }
  SA_LAYERS_HOST_DEVICE int64_t output_size() const { return (size + stride - 1) / stride; }
  // Where a tap of an output pixel falls, counted from the first padded pixel.
  SA_LAYERS_HOST_DEVICE int64_t padded(int64_t output, int64_t tap) const { return output * stride + tap * dilation; }
  // The pixel that a padded position reads, or -1 for a padded zero.
  SA_LAYERS_HOST_DEVICE int64_t pixel(int64_t padded_position, Padding mode) const {
    const int64_t index = padded_position - padding();
    if (mode == Padding::kReflect) return reflect(index, size);
    return index >= 0 && index < size ? index : -1;
  }

  // Under kClamp, the first pixel of an output pixel's window. As in NATTEN, every dilation-th pixel belongs to an axis
  // of its own, along which the window is moved. Needs at least kernel * dilation pixels.
  SA_LAYERS_HOST_DEVICE int64_t window(int64_t output) const {
    const int64_t centre = output * stride, phase = centre % dilation;
    const int64_t last_first = (size - phase + dilation - 1) / dilation - kernel,
                  first = centre / dilation - kernel / 2;
    return phase + dilation * (first < 0 ? 0 : first > last_first ? last_first : first);
  }
  // The pixel under a tap of an output pixel, or -1 for a padded zero.
  SA_LAYERS_HOST_DEVICE int64_t source(int64_t output, int64_t tap, Padding mode) const {
    return mode == Padding::kClamp ? window(output) + tap * dilation : pixel(padded(output, tap), mode);
  }
};

// Taps are counted row by row: tap = row_tap * columns.kernel + column_tap.
struct Footprint {
  Axis rows;
  Axis columns;
  Padding mode;

  SA_LAYERS_HOST_DEVICE int64_t taps() const { return rows.kernel * columns.kernel; }
  SA_LAYERS_HOST_DEVICE int64_t pixels() const { return rows.size * columns.size; }
  SA_LAYERS_HOST_DEVICE int64_t output_pixels() const { return rows.output_size() * columns.output_size(); }
};

// Which channels of the value share a weight map: channel c uses the weight map c % weight_channels or, in contiguous
// groups, c / (channels / weight_channels).
enum class Groups { kInterleaved, kContiguous };

struct Aggregation {
  Footprint footprint;
  int64_t batch, channels, weight_channels;
  Groups groups = Groups::kInterleaved;

  SA_LAYERS_HOST_DEVICE int64_t weight_maps() const { return batch * weight_channels; }
  // The number of channels that share a weight map; the counts differ by at most one if weight_channels does not divide
  // channels.
  SA_LAYERS_HOST_DEVICE int64_t sharing(int64_t weight_channel) const {
    return (channels - weight_channel + weight_channels - 1) / weight_channels;
  }
  // The first of them, and the distance from each to the next. weight_channels divides channels in contiguous groups.
  SA_LAYERS_HOST_DEVICE int64_t first_channel(int64_t weight_channel) const {
    return groups == Groups::kContiguous ? weight_channel * (channels / weight_channels) : weight_channel;
  }
  SA_LAYERS_HOST_DEVICE int64_t channel_step() const { return groups == Groups::kContiguous ? 1 : weight_channels; }
};

// Of pairwise attention.
enum class Relation { kSubtraction, kSummation, kHadamard, kDot, kConcatenation };

SA_LAYERS_HOST_DEVICE inline bool is_product(Relation relation) {
  return relation == Relation::kHadamard || relation == Relation::kDot;
}

// Concatenation is [query, keys]; star is query * key of every tap; clique is query of every tap * key of every tap.
enum class PatchwiseRelation { kConcatenation, kStar, kClique };

}  // namespace sa_layers
