// Tiles of a map's pixels as left factors of products.
#if defined(SA_LAYERS_CPU_PATCHWISE_TRAINING_TILES_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PATCHWISE_TRAINING_TILES_H
#undef SA_LAYERS_CPU_PATCHWISE_TRAINING_TILES_H
#else
#define SA_LAYERS_CPU_PATCHWISE_TRAINING_TILES_H
#endif

#include "cpu/patchwise_training/products.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Calls body(first pixel, count) for the tiles of some pixels.
template <typename Body>
inline void for_each_tile(int64_t pixels, const Body& body) {
  for (int64_t pixel = 0; pixel < pixels; pixel += kTilePixels) body(pixel, min(kTilePixels, pixels - pixel));
}

// The pixels of a contiguous map of `channels` channels, kTileDepth of them in each buffer of a tile.
template <typename C>
class ChannelTile {
 public:
  explicit ChannelTile(int64_t channels)
      : channels_(channels), rows_(ceil_div(channels, kTileDepth) * kBuffer + kLanes<C>) {}

  // relu(scale * pixel + shift), or without a scale the pixels themselves.
  void fill(const C* from, int64_t pixels, const C* scale = nullptr, const C* shift = nullptr) {
    for (int64_t channel = 0; channel < channels_; channel += kLanes<C>) {
      const SomeLanes some{0, min(kLanes<C>, channels_ - channel)};
      const C *const scales = scale ? scale + channel : nullptr, *const shifts = shift ? shift + channel : nullptr;
      C* to = rows_.data() + channel / kTileDepth * kBuffer + channel % kTileDepth;
      if (some.end == kLanes<C>) {
        copy(from + channel, pixels, scales, shifts, AllLanes{}, to);
      } else {
        copy(from + channel, pixels, scales, shifts, some, to);
      }
    }
  }

  // Calls body(product, is_last) for the products whose sum is the tile times vectors of a matrix that has a row for
  // each channel. They add to `out`; the first one starts from `initial`, one row for all pixels.
  template <typename Body>
  void for_each_product(const C* matrix, const C* initial, C* out, const Body& body) const {
    for (int64_t channel = 0; channel < channels_; channel += kTileDepth) {
      const int64_t depth = min(kTileDepth, channels_ - channel);
      const PixelProduct<C> product{rows_.data() + channel / kTileDepth * kBuffer,
                                    depth,
                                    matrix + channel * kLanes<C>,
                                    channels_ * kLanes<C>,
                                    channel == 0 ? initial : out,
                                    channel == 0 ? 0 : kTileStride,
                                    out,
                                    kTileStride};
      body(product, channel + depth == channels_);
    }
  }
  void multiply_by(const C* matrix, const C* initial, int64_t pixels, int64_t vectors, C* out) const {
    for_each_product(matrix, initial, out,
                     [&](const PixelProduct<C>& product, bool) { multiply(product, pixels, vectors); });
  }

  // sums[vector][channel] += sum over pixels of this tile's channel * right[pixel][vector].
  void add_products(const C* right, int64_t pixels, int64_t vectors, C* sums, C* totals) const {
    for (int64_t channel = 0; channel < channels_; channel += kTileDepth) {
      const SumOfPixels<C> product{rows_.data() + channel / kTileDepth * kBuffer,
                                   right,
                                   pixels,
                                   sums + channel * kLanes<C>,
                                   channels_ * kLanes<C>,
                                   channel == 0 ? totals : nullptr};
      sum_of_pixels(product, min(kTileDepth, channels_ - channel), vectors);
    }
  }

 private:
  static constexpr int64_t kBuffer = kTilePixels * kTileStride;

  template <typename Lanes>
  void copy(const C* from, int64_t pixels, const C* scale, const C* shift, Lanes lanes, C* to) const {
    Vector<C> scales{}, shifts{};
    if (scale != nullptr) scales = load(scale, lanes), shifts = load(shift, lanes);
    for (int64_t pixel = 0; pixel < pixels; ++pixel, from += channels_, to += kTileStride) {
      const Vector<C> values = load(from, lanes);
      store(to, scale == nullptr ? values : relu(values * scales + shifts));
    }
  }

  int64_t channels_;
  Scratch<C> rows_;
};

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PATCHWISE_TRAINING_TILES_H
