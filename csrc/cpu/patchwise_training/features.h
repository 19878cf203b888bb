// The features of a tile's footprints, a panel of columns at a time: gathered, activated, and their gradients
// scattered.
#if defined(SA_LAYERS_CPU_PATCHWISE_TRAINING_FEATURES_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PATCHWISE_TRAINING_FEATURES_H
#undef SA_LAYERS_CPU_PATCHWISE_TRAINING_FEATURES_H
#else
#define SA_LAYERS_CPU_PATCHWISE_TRAINING_FEATURES_H
#endif

#include "cpu/patchwise_training/products.h"
#include "cpu/patchwise_training/regions.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// The features that a band of an image reads, for a slice of the channels: the rows of the key, a pixel of zeros, the
// centres of the query. Tap 0 is the query.
template <typename C>
class FeatureRegion {
 public:
  explicit FeatureRegion(const HiddenProblem& problem)
      : problem_(problem),
        pixel_size_(problem.columns.width),
        region_(problem.region_size() + kLanes<C>),
        sources_(problem.columns.taps * problem.bands.max_pixels + kLanes<float>) {}

  void list(const RowBand& band) {
    const Footprint& footprint = problem_.footprint;
    const int64_t pixels = problem_.bands.max_pixels;
    const int64_t count = band.rows() * footprint.columns.output_size();
    for (int64_t p = 0; p < count; ++p) sources_.data()[p] = static_cast<int32_t>(centres(band) + p * pixel_size_);
    list_sources(footprint, band, pixel_size_, sources_.data() + pixels, pixels);
  }

  template <typename T>
  void copy(const RowBand& band, const PixelMap<const T>& query, const PixelMap<const T>& key, int64_t slice) {
    const Axis &rows = problem_.footprint.rows, &columns = problem_.footprint.columns;
    const ChannelVectors channels = slice_of(problem_, slice);
    const int64_t first = (band.image * rows.size + band.source_begin) * columns.size;
    const int64_t pixels = band.source_rows() * columns.size;
    C* to = region_.data();
    copy_pixels(key.data + first * key.pixel_stride, key.pixel_stride, pixels, channels, to);
    to += pixels * pixel_size_;
    fill_with_zeros(to, pixel_size_);
    to += pixel_size_;
    for (int64_t y = band.row_begin; y < band.row_end; ++y, to += columns.output_size() * pixel_size_) {
      const T* const from = query.data + centre(band, y) * query.pixel_stride;
      copy_pixels(from, columns.stride * query.pixel_stride, columns.output_size(), channels, to);
    }
  }

  // Stores the query's gradients, from gradients of this region's shape.
  template <typename T>
  void store_query(const RowBand& band, const C* gradients, int64_t slice, const PixelMap<T>& grad_query) const {
    const Axis& columns = problem_.footprint.columns;
    const ChannelVectors channels = slice_of(problem_, slice);
    gradients += centres(band);
    for (int64_t y = band.row_begin; y < band.row_end; ++y, gradients += columns.output_size() * pixel_size_) {
      T* const to = grad_query.data + centre(band, y) * grad_query.pixel_stride;
      store_pixels(&gradients, 1, columns.output_size(), channels, to, columns.stride * grad_query.pixel_stride);
    }
  }

  const C* data() const { return region_.data(); }
  const int32_t* sources() const { return sources_.data(); }
  int64_t tap_stride() const { return problem_.bands.max_pixels; }

 private:
  int64_t centres(const RowBand& band) const {
    return (band.source_rows() * problem_.footprint.columns.size + 1) * pixel_size_;
  }
  int64_t centre(const RowBand& band, int64_t row) const {
    const Footprint& footprint = problem_.footprint;
    return (band.image * footprint.rows.size + row * footprint.rows.stride) * footprint.columns.size;
  }

  const HiddenProblem& problem_;
  int64_t pixel_size_;
  Scratch<C> region_;
  Scratch<int32_t> sources_;
};

// The features of a tile's pixels in a panel of columns. Rows of buffers are kTileStride apart.
template <typename C>
struct FeatureTile {
  int64_t pixels, taps, width, vectors;
  bool is_packed;
  const C* region;
  const int32_t* sources;  // of the first pixel and tap
  int64_t tap_stride;
  const C *scale, *shift;  // of the panel's columns

  // rows = relu(scale * feature + shift). `gathered` gets the features if they are packed.
  void activate(C* gathered, C* rows) const {
    if (is_packed) gather(gathered);
    for (int64_t v = 0; v < vectors; ++v) {
      const Vector<C> scales = load(scale + v * kLanes<C>), shifts = load(shift + v * kLanes<C>);
      C* to = rows + v * kLanes<C>;
      const C* from = gathered + v * kLanes<C>;
      const int32_t* source = sources + v * tap_stride;
      for (int64_t p = 0; p < pixels; ++p, to += kTileStride, from += kTileStride) {
        store(to, relu(load(is_packed ? from : region + source[p]) * scales + shifts));
      }
    }
  }

  // For packed features. Masks `rows`, the gradients of scale * feature + shift, by the ReLU and scatters those of the
  // features. totals += sum of the masked gradients; moments += sum of them times feature - mean.
  void scatter(const C* gathered, const C* mean, C* rows, C* totals, C* moments, C* gradients) const {
    for (int64_t v = 0; v < vectors; ++v) {
      const int64_t column = v * kLanes<C>;
      const Vector<C> scales = load(scale + column), shifts = load(shift + column), means = load(mean + column);
      Vector<C> total = {}, moment = {};
      C* row = rows + column;
      const C* from = gathered + column;
      for (int64_t p = 0; p < pixels; ++p, row += kTileStride, from += kTileStride) {
        const Vector<C> feature = load(from);
        const Vector<C> gradient = feature * scales + shifts > 0 ? load(row) : Vector<C>{};
        total += gradient, moment += gradient * (feature - means);
        store(row, gradient * scales);
      }
      store(totals + column, load(totals + column) + total);
      store(moments + column, load(moments + column) + moment);
    }
    scatter_packed(rows, gradients);
  }

  // The same for taps that are vectors, where the gradients of scale * feature + shift are initial + left * matrix, a
  // product as in PixelProduct whose blocks never leave the registers. Initial rows that all pixels share are zero.
  void multiply_and_scatter(const PixelProduct<C>& product, const C* mean, C* totals, C* moments, C* gradients) const {
    const auto scatter_all = [&](auto adds) ALWAYS_INLINE_LAMBDA {
      constexpr bool kAdds = decltype(adds)::value;
      int64_t tap = 0;
      for (; tap + 2 <= taps; tap += 2) scatter_taps<2, kAdds>(product, tap, mean, totals, moments, gradients);
      if (tap < taps) scatter_taps<1, kAdds>(product, tap, mean, totals, moments, gradients);
    };
    if (product.initial_stride == 0) {
      scatter_all(Constant<false>{});
    } else {
      scatter_all(Constant<true>{});
    }
  }

 private:
  template <int kTaps, bool kAdds>
  void scatter_taps(const PixelProduct<C>& product, int64_t tap, const C* mean, C* totals, C* moments,
                    C* gradients) const {
    int64_t p = 0;
    for (; p + kScatterRows <= pixels; p += kScatterRows) {
      scatter_block<kScatterRows, kTaps, kAdds>(product, p, tap, mean, totals, moments, gradients);
    }
    if constexpr (kScatterRows > 4) {
      if (p + 4 <= pixels) scatter_block<4, kTaps, kAdds>(product, p, tap, mean, totals, moments, gradients), p += 4;
    }
    if (p + 2 <= pixels) scatter_block<2, kTaps, kAdds>(product, p, tap, mean, totals, moments, gradients), p += 2;
    if (p < pixels) scatter_block<1, kTaps, kAdds>(product, p, tap, mean, totals, moments, gradients);
  }

  template <int kRows, int kTaps, bool kAdds>
  __attribute__((noinline)) void scatter_block(const PixelProduct<C>& product, int64_t pixel, int64_t tap,
                                               const C* mean, C* totals, C* moments, C* gradients) const {
    constexpr int64_t lanes = kLanes<C>;
    Vector<C> sums[kTaps][kRows];
#pragma GCC unroll 2
    for (int t = 0; t < kTaps; ++t) {
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        const C* const initial = product.initial + (pixel + i) * product.initial_stride + (tap + t) * lanes;
        sums[t][i] = kAdds ? load(initial) : Vector<C>{};
      }
    }
    const C *left = product.left + pixel * kTileStride, *matrix = product.matrix + tap * product.vector_stride;
    const int64_t vector_stride = product.vector_stride;
    for (int64_t step = 0; step < product.depth; ++step, ++left, matrix += lanes) {
      Vector<C> columns[kTaps];
#pragma GCC unroll 2
      for (int t = 0; t < kTaps; ++t) columns[t] = load(matrix + t * vector_stride);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        const Vector<C> factor = repeat<1>(left + i * kTileStride);
#pragma GCC unroll 2
        for (int t = 0; t < kTaps; ++t) sums[t][i] += factor * columns[t];
      }
    }
#pragma GCC unroll 2
    for (int t = 0; t < kTaps; ++t) {
      const int64_t column = (tap + t) * lanes;
      const Vector<C> scales = load(scale + column), shifts = load(shift + column), means = load(mean + column);
      const int32_t* const source = sources + (tap + t) * tap_stride + pixel;
      Vector<C> total = load(totals + column), moment = load(moments + column);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        const Vector<C> feature = load(region + source[i]);
        const Vector<C> gradient = feature * scales + shifts > 0 ? sums[t][i] : Vector<C>{};
        total += gradient, moment += gradient * (feature - means);
        C* const to = gradients + source[i];
        store(to, load(to) + gradient * scales);
      }
      store(totals + column, total), store(moments + column, moment);
    }
  }

  // Calls body(column, source) for the taps of a pixel.
  template <typename Body>
  ALWAYS_INLINE void for_each_tap(int64_t pixel, const Body& body) const {
    const int32_t* source = sources + pixel;
    for (int64_t column = 0; column < taps * width; column += width, source += tap_stride) body(column, *source);
  }
  void gather(C* rows) const {
    with_count<C>(width, [&](auto constant) ALWAYS_INLINE_LAMBDA {
      for (int64_t p = 0; p < pixels; ++p, rows += kTileStride) {
        store(rows + (vectors - 1) * kLanes<C>, Vector<C>{});
        for_each_tap(p, [&](int64_t column, int64_t source) ALWAYS_INLINE_LAMBDA {
          Few<C, decltype(constant)::value>::load(region + source, width).store(rows + column, width);
        });
      }
    });
  }
  void scatter_packed(const C* rows, C* gradients) const {
    with_count<C>(width, [&](auto constant) ALWAYS_INLINE_LAMBDA {
      using Channels = Few<C, decltype(constant)::value>;
      for (int64_t p = 0; p < pixels; ++p, rows += kTileStride) {
        for_each_tap(p, [&](int64_t column, int64_t source) ALWAYS_INLINE_LAMBDA {
          Channels sum = Channels::load(gradients + source, width);
          sum.add(Channels::load(rows + column, width), width);
          sum.store(gradients + source, width);
        });
      }
    });
  }
};

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PATCHWISE_TRAINING_FEATURES_H
