// The backward pass of a norm, a ReLU and 2x2 max-pooling: sums over the selected pixels, and the gradient of the map.
#if defined(SA_LAYERS_CPU_NORM_TRAINING_MAX_POOLING_BACKWARD_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_NORM_TRAINING_MAX_POOLING_BACKWARD_H
#undef SA_LAYERS_CPU_NORM_TRAINING_MAX_POOLING_BACKWARD_H
#else
#define SA_LAYERS_CPU_NORM_TRAINING_MAX_POOLING_BACKWARD_H
#endif

#include "cpu/norm_training/max_pooling.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Two sums for every channel, of the outputs of a run in the dtype of computation. They stay in the first-level cache.
template <typename T>
class RunSums {
 public:
  explicit RunSums(int64_t channels) : width_(round_up(channels, kLanes<T>)), sums_(2 * width_) { clear(); }

  ALWAYS_INLINE void add(int64_t channel, Vector<T> first_term, Vector<T> second_term) const {
    Compute<T>*first = sums_.data() + channel, *second = first + width_;
    store(first, load(first) + first_term);
    store(second, load(second) + second_term);
  }

  // Adds the sums to those of the band, (2, channels), and begins a new run.
  void flush(int64_t channels, double* band) const {
    for (int64_t c = 0; c < channels; ++c) {
      band[c] += sums_.data()[c];
      band[channels + c] += sums_.data()[width_ + c];
    }
    clear();
  }

 private:
  void clear() const {
    for (int64_t c = 0; c < 2 * width_; ++c) sums_.data()[c] = 0;
  }

  int64_t width_;
  Scratch<Compute<T>> sums_;
};

// One vector of channels of an output.
template <typename T, typename Lanes>
ALWAYS_INLINE void max_pooling_sums_vector(const PoolingSums<T>& problem, const Corners& corners, const T* first,
                                           const T* grad, int64_t channel, const RunSums<T>& sums, Lanes lanes) {
  const Pooling<T>& pooling = problem.pooling;
  Vector<T> pixels[4];
  load_corners(first + channel, corners, pixels, lanes);
  const Winner<T> winner =
      find_winner<true, T>(pixels, load(pooling.scale + channel, lanes), load(pooling.shift + channel, lanes));
  Vector<T> selected = pixels[0];
#pragma GCC unroll 4
  for (int p = 1; p < 4; ++p) selected = winner.index == p ? pixels[p] : selected;
  const Vector<T> arriving = load(grad + channel, lanes);
  const Vector<T> passing = winner.maximum <= 0 ? Vector<T>{} : arriving;
  sums.add(channel, passing, passing * (selected - load(problem.center + channel, lanes)));
}

// The sums of the output's rows first <= row < last, (2, channels).
template <typename T>
void max_pooling_sums(const PoolingSums<T>& problem, int64_t first, int64_t last, double* sums) {
  const Pooling<T>& pooling = problem.pooling;
  const Corners corners(pooling.pixels.stride, pooling.width);
  const int64_t width = pooling.out_width();
  const RunSums<T> run(pooling.channels);
  for (int64_t c = 0; c < 2 * pooling.channels; ++c) sums[c] = 0;
  for (int64_t output = first * width; output < last * width; ++output) {
    const T* from = pooling.pixels.at(pooling.first_pixel(output / width) + 2 * (output % width));
    const T* grad = problem.grad.at(output);
    for_each_vector_of<T>(pooling.channels, [&](int64_t channel, auto lanes) ALWAYS_INLINE_LAMBDA {
      max_pooling_sums_vector(problem, corners, from, grad, channel, run, lanes);
    });
    const int64_t done = output + 1 - first * width;
    if (done % kRunPixels == 0 || output + 1 == last * width) run.flush(pooling.channels, sums);
  }
}

// k1 * grad + (k2 * (pixel - center) + k3), or k1 * grad without statistics, of one vector of channels.
template <typename T>
struct VectorFactors {
  Vector<T> k1, k2, center, k3;

  template <bool kHasStatistics>
  ALWAYS_INLINE Vector<T> apply(Vector<T> grad, Vector<T> pixel) const {
    if constexpr (kHasStatistics) return k1 * grad + (k2 * (pixel - center) + k3);
    return k1 * grad;
  }
};

template <bool kHasStatistics, typename T, typename Lanes>
ALWAYS_INLINE VectorFactors<T> load_factors(const Factors<T>& factors, int64_t c, Lanes lanes) {
  VectorFactors<T> result;
  result.k1 = load(factors.k1 + c, lanes);
  if constexpr (kHasStatistics) {
    result.k2 = load(factors.k2 + c, lanes);
    result.center = load(factors.center + c, lanes);
    result.k3 = load(factors.k3 + c, lanes);
  }
  return result;
}

// Pixels that no output reads, in the last row or column of an odd map.
template <bool kHasStatistics, typename T>
ALWAYS_INLINE void unpooled_pixels(const PoolingBackward<T>& problem, int64_t pixel, int64_t count) {
  for (int64_t i = pixel; i < pixel + count; ++i) {
    const T* from = problem.pooling.pixels.at(i);
    T* to = problem.out.at(i);
    for_each_vector_of<T>(problem.pooling.channels, [&](int64_t c, auto lanes) ALWAYS_INLINE_LAMBDA {
      const VectorFactors<T> factors = load_factors<kHasStatistics>(problem.factors, c, lanes);
      const Vector<T> zero{};
      store(to + c, factors.template apply<kHasStatistics>(zero, kHasStatistics ? load(from + c, lanes) : zero), lanes);
    });
  }
}

template <bool kHasNorm, bool kHasStatistics, typename T>
ALWAYS_INLINE void max_pooling_backward_rows(const PoolingBackward<T>& problem, int64_t first, int64_t last) {
  const Pooling<T>& pooling = problem.pooling;
  const int64_t out_width = pooling.out_width();
  const Corners corners(pooling.pixels.stride, pooling.width), targets(problem.out.stride, pooling.width);
  for (int64_t row = first; row < last; ++row) {
    const int64_t pixel = pooling.first_pixel(row);
    for (int64_t x = 0; x < out_width; ++x) {
      const T *from = pooling.pixels.at(pixel + 2 * x), *grad = problem.grad.at(row * out_width + x);
      T* to = problem.out.at(pixel + 2 * x);
      for_each_vector_of<T>(pooling.channels, [&](int64_t c, auto lanes) ALWAYS_INLINE_LAMBDA {
        const Vector<T> scale = kHasNorm ? load(pooling.scale + c, lanes) : Vector<T>{};
        const Vector<T> shift = kHasNorm ? load(pooling.shift + c, lanes) : Vector<T>{};
        const VectorFactors<T> factors = load_factors<kHasStatistics>(problem.factors, c, lanes);
        Vector<T> pixels[4];
        load_corners(from + c, corners, pixels, lanes);
        const Winner<T> winner = find_winner<kHasNorm, T>(pixels, scale, shift);
        Vector<T> passing = load(grad + c, lanes);
        if constexpr (kHasNorm) passing = winner.maximum <= 0 ? Vector<T>{} : passing;
#pragma GCC unroll 4
        for (int p = 0; p < 4; ++p) {
          const Vector<T> selected = winner.index == p ? passing : Vector<T>{};
          store(to + targets.offsets[p] + c, factors.template apply<kHasStatistics>(selected, pixels[p]), lanes);
        }
      });
    }
    const int64_t below = pixel + 2 * pooling.width;
    if (pooling.width % 2 != 0) {
      unpooled_pixels<kHasStatistics>(problem, pixel + pooling.width - 1, 1);
      unpooled_pixels<kHasStatistics>(problem, below - 1, 1);
    }
    const bool is_last = row % pooling.out_height() == pooling.out_height() - 1;
    if (is_last && pooling.height % 2 != 0) unpooled_pixels<kHasStatistics>(problem, below, pooling.width);
  }
}

// The pixels that the output's rows first <= row < last read, and those beside and below them that none does.
template <typename T>
void max_pooling_backward(const PoolingBackward<T>& problem, int64_t first, int64_t last) {
  const bool has_norm = problem.pooling.scale != nullptr, has_statistics = problem.factors.k2 != nullptr;
  if (has_norm && has_statistics) max_pooling_backward_rows<true, true>(problem, first, last);
  if (has_norm && !has_statistics) max_pooling_backward_rows<true, false>(problem, first, last);
  if (!has_norm && has_statistics) max_pooling_backward_rows<false, true>(problem, first, last);
  if (!has_norm && !has_statistics) max_pooling_backward_rows<false, false>(problem, first, last);
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_NORM_TRAINING_MAX_POOLING_BACKWARD_H
