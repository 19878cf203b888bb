// Pixels of four channels, as in SAN's first stage: a vector holds a neighbour of several pixels that follow each
// other, in four lanes each. Such pixels are computed in registers, tap by tap, where their footprints lie within the
// map; the others of a row as pairs.
#if defined(SA_LAYERS_CPU_PAIRWISE_TRAINING_PACKED_PIXELS_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PAIRWISE_TRAINING_PACKED_PIXELS_H
#undef SA_LAYERS_CPU_PAIRWISE_TRAINING_PACKED_PIXELS_H
#else
#define SA_LAYERS_CPU_PAIRWISE_TRAINING_PACKED_PIXELS_H
#endif

#include "cpu/pairwise_training/problem.h"
#include "cpu/simd/vector.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

constexpr int kPixelLanes = 4;
template <typename C>
constexpr int kPackedPixels = static_cast<int>(max(int64_t{1}, kLanes<C> / kPixelLanes));
template <typename C>
constexpr bool kPacksPixels = sizeof(C) == 4 && kPackedPixels<C> > 1;

// Whether differences of query and key are packed, and with them the mapping and the values.
template <typename C>
bool packs_relation(const PairwiseTraining& problem) {
  const Axis &rows = problem.footprint.rows, &columns = problem.footprint.columns;
  return kPacksPixels<C> && problem.is_difference() && problem.columns() == kPixelLanes &&
         problem.channels == kPixelLanes && rows.stride == 1 && columns.stride == 1;
}
template <typename C>
bool packs_mapping(const PairwiseTraining& problem) {
  return packs_relation<C>(problem) && problem.hidden == kPixelLanes && kPixelLanes % problem.weight_channels == 0 &&
         problem.value_channels % kLanes<C> == 0;
}

// Lanes of one vector, or of two, by the function index(lane); those of the second begin at kLanes.
template <typename C, typename Index>
ALWAYS_INLINE Vector<C> permute(Vector<C> one, Vector<C> two, const Index& index) {
#ifdef __clang__
  Vector<C> result;
  for (int i = 0; i < kLanes<C>; ++i) result[i] = index(i) < kLanes<C> ? one[index(i)] : two[index(i) - kLanes<C>];
  return result;
#else
  typename VectorOf<C>::integers indices;
  for (int i = 0; i < kLanes<C>; ++i) indices[i] = index(i);
  return __builtin_shuffle(one, two, indices);
#endif
}
template <typename C, typename Index>
ALWAYS_INLINE Vector<C> permute(Vector<C> x, const Index& index) {
  return permute<C>(x, x, index);
}

// Lane kLane of every pixel in all of its lanes.
template <int kLane, typename C>
ALWAYS_INLINE Vector<C> spread(Vector<C> x) {
  return permute<C>(x, [](int i) ALWAYS_INLINE_LAMBDA { return i / kPixelLanes * kPixelLanes + kLane; });
}
// The lanes of one pixel in those of all.
template <int kPixel, typename C>
ALWAYS_INLINE Vector<C> repeat_pixel(Vector<C> x) {
  return permute<C>(x, [](int i) ALWAYS_INLINE_LAMBDA { return kPixel * kPixelLanes + i % kPixelLanes; });
}
ALWAYS_INLINE Vector<float> repeat_four(const float* from) {
#if SA_LAYERS_TARGET == SA_LAYERS_AVX512
  return _mm512_maskz_broadcast_f32x4(0xffff, _mm_loadu_ps(from));
#elif SA_LAYERS_TARGET == SA_LAYERS_AVX2
  const __m128 four = _mm_loadu_ps(from);
  return _mm256_set_m128(four, four);
#else
  return load(from);
#endif
}

// The sum of a vector's halves, of the first in the lower half and of the second in the upper one.
template <typename C>
ALWAYS_INLINE Vector<C> add_halves(Vector<C> one, Vector<C> two) {
  constexpr int kHalf = static_cast<int>(kLanes<C> / 2);
  const Vector<C> low = permute<C>(one, two, [](int i) { return i < kHalf ? i : i + kHalf; });
  return low + permute<C>(one, two, [](int i) { return i < kHalf ? i + kHalf : i + 2 * kHalf; });
}

// The sums of each vector's groups of four lanes, in the lanes of the pixel that has its number.
template <typename C>
ALWAYS_INLINE Vector<C> add_groups(const Vector<C> (&x)[kPackedPixels<C>]) {
  if constexpr (kPackedPixels<C> == 1) return x[0];
  if constexpr (kPackedPixels<C> == 2) return add_halves<C>(x[0], x[1]);
  if constexpr (kPackedPixels<C> == 4) {
    // Each vector has two groups of the first pixel, then two of the second.
    const Vector<C> one = add_halves<C>(x[0], x[1]), two = add_halves<C>(x[2], x[3]);
    const auto even = [](int i) { return i / kPixelLanes * 2 * kPixelLanes + i % kPixelLanes; };
    const Vector<C> sum = permute<C>(one, two, even);
    return sum + permute<C>(one, two, [=](int i) { return even(i) + kPixelLanes; });
  }
}

// sum + x * matrix for the four lanes of every pixel, where matrix holds its rows repeated.
template <typename C>
ALWAYS_INLINE Vector<C> multiply_lanes(Vector<C> x, const Vector<C> (&matrix)[kPixelLanes], Vector<C> sum) {
  sum += spread<0, C>(x) * matrix[0];
  sum += spread<1, C>(x) * matrix[1];
  sum += spread<2, C>(x) * matrix[2];
  return sum + spread<3, C>(x) * matrix[3];
}
// sums[i] += left[i] * right of every pixel.
template <typename C>
ALWAYS_INLINE void add_outer_products(Vector<C> left, Vector<C> right, Vector<C> (&sums)[kPixelLanes]) {
  sums[0] += spread<0, C>(left) * right;
  sums[1] += spread<1, C>(left) * right;
  sums[2] += spread<2, C>(left) * right;
  sums[3] += spread<3, C>(left) * right;
}

template <typename C, typename Body>
ALWAYS_INLINE void for_each_packed_pixel(const Body& body) {
  body(Constant<0>{});
  if constexpr (kPackedPixels<C> > 1) body(Constant<1>{});
  if constexpr (kPackedPixels<C> > 2) body(Constant<2>{}), body(Constant<3>{});
}

// The packed pixels of a band: keys and queries, and where the neighbours of a row are.
template <typename C>
class PackedPixels {
 public:
  int64_t first = 0, last = 0;  // of the row's pixels; none are packed if they are equal

  PackedPixels(const PairwiseTraining& problem, bool is_used)
      : problem_(problem),
        is_used_(is_used),
        plane_(is_used ? problem.window_pixels() * kPixelLanes : 0),
        keys_(plane_ + kLanes<C>),
        queries_(is_used ? problem.width() * kPixelLanes + kLanes<C> : 1),
        key_sums_(plane_ * problem.footprint.columns.kernel + kLanes<C>),
        by_tap_(taps() * kLanes<C>),
        weights_(taps() * kLanes<C>),
        neighbours_(taps()),
        sums_at_(taps()),
        offsets_(taps()) {
    clear_numbers(by_tap_.data(), taps() * kLanes<C>);
  }

  int64_t taps() const { return is_used_ ? problem_.footprint.taps() : 1; }

  // `keys` are the window's, with `size` numbers a pixel.
  void start_band(const Band& band, const C* keys, int64_t size) {
    if (!is_used_) return;
    band_ = band;
    pack(keys, size, band.rows() * problem_.footprint.columns.size, keys_.data());
    clear_numbers(key_sums_.data(), plane_ * problem_.footprint.columns.kernel);
  }
  void start_row(int64_t row, const C* queries, int64_t size) {
    const Axis &rows = problem_.footprint.rows, &columns = problem_.footprint.columns;
    first = last = 0;
    if (!is_used_ || row < rows.padding() || row + rows.padding() >= rows.size) return;
    const int64_t inside = columns.size - 2 * columns.padding();
    if (inside < kPackedPixels<C>) return;
    first = columns.padding(), last = first + inside / kPackedPixels<C> * kPackedPixels<C>;
    pack(queries, size, columns.size, queries_.data());
    for (int64_t tap = 0; tap < taps(); ++tap) {
      const int64_t y = tap / columns.kernel * rows.dilation, x = tap % columns.kernel * columns.dilation;
      const int64_t window_row = row - rows.padding() + y - band_.first_row;
      neighbours_.data()[tap] = window_row * columns.size + x - columns.padding();
      sums_at_.data()[tap] = tap % columns.kernel * plane_ + window_row * columns.size * kPixelLanes;
      offsets_.data()[tap] = problem_.by_offset ? y * problem_.column_offsets() + x : 0;
    }
  }

  Vector<C> query(int64_t pixel) const { return load(queries_.data() + pixel * kPixelLanes); }
  // In the window, of a pixel's tap.
  int64_t neighbour(int64_t pixel, int64_t tap) const { return neighbours_.data()[tap] + pixel; }
  Vector<C> difference(Vector<C> query, int64_t pixel, int64_t tap) const {
    return query - load(keys_.data() + neighbour(pixel, tap) * kPixelLanes);
  }
  int64_t offset(int64_t tap) const { return offsets_.data()[tap]; }
  // Of the taps of the current pixels, a vector each.
  C* weights() const { return weights_.data(); }

  // Adds to the sum of a tap, over all pixels of the row.
  void add(int64_t tap, Vector<C> x) const {
    C* const sum = by_tap_.data() + tap * kLanes<C>;
    store(sum, load(sum) + x);
  }
  // Adds the sums of the row's taps to a table by offset, and clears them.
  void finish_taps(double* table, int64_t width) const {
    for (int64_t tap = 0; tap < taps(); ++tap) {
      for (int64_t i = 0; i < kLanes<C>; ++i) {
        table[offset(tap) * width + i % kPixelLanes] += by_tap_.data()[tap * kLanes<C> + i];
      }
    }
    clear_numbers(by_tap_.data(), taps() * kLanes<C>);
  }

  // Adds gradients to the sums of neighbours. Those of each column of taps are apart: a vector that overlaps the one
  // stored before would have to wait for it.
  void scatter(int64_t pixel, int64_t tap, Vector<C> gradient) const {
    C* const sum = key_sums_.data() + sums_at_.data()[tap] + pixel * kPixelLanes;
    store(sum, load(sum) + gradient);
  }
  void store_query_sums(int64_t pixel, Vector<C> sum, C* query_sums, int64_t size) const {
    alignas(64) C lanes[kLanes<C>];
    store(lanes, sum);
    pack(lanes, kPixelLanes, kPackedPixels<C>, query_sums + pixel * size, size);
  }
  // Adds the sums of neighbours to those of the band's pairs.
  void finish_band(C* key_sums, int64_t size) const {
    if (!is_used_) return;
    const Axis& columns = problem_.footprint.columns;
    for (int64_t i = 0; i < columns.kernel; ++i) {
      const int64_t shift = i * columns.dilation - columns.padding();
      for (int64_t row = 0; row < band_.rows(); ++row) {
        const C* const from = key_sums_.data() + i * plane_ + row * columns.size * kPixelLanes;
        C* const to = key_sums + (row * columns.size + shift) * size;
        for (int64_t x = columns.padding(); x < columns.size - columns.padding(); ++x) {
          for (int c = 0; c < kPixelLanes; ++c) to[x * size + c] += from[x * kPixelLanes + c];
        }
      }
    }
  }

 private:
  static void clear_numbers(C* data, int64_t count) {
    __builtin_memset(static_cast<void*>(data), 0, count * sizeof(C));
  }
  static void pack(const C* from, int64_t size, int64_t pixels, C* to, int64_t to_size = kPixelLanes) {
    for (int64_t p = 0; p < pixels; ++p) __builtin_memcpy(to + p * to_size, from + p * size, kPixelLanes * sizeof(C));
  }

  const PairwiseTraining& problem_;
  const bool is_used_;
  const int64_t plane_;  // numbers of a window
  Scratch<C> keys_, queries_, key_sums_, by_tap_, weights_;
  Scratch<int64_t> neighbours_, sums_at_, offsets_;
  Band band_{};
};

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PAIRWISE_TRAINING_PACKED_PIXELS_H
