// The passes over the packed pixels of an output row; the functions of rows.h and moments.h compute its other pixels.
#if defined(SA_LAYERS_CPU_PAIRWISE_TRAINING_PACKED_ROWS_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PAIRWISE_TRAINING_PACKED_ROWS_H
#undef SA_LAYERS_CPU_PAIRWISE_TRAINING_PACKED_ROWS_H
#else
#define SA_LAYERS_CPU_PAIRWISE_TRAINING_PACKED_ROWS_H
#endif

#include "cpu/pairwise_training/softmax_gradient.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// A matrix with four columns, whose rows are repeated for every pixel; those after `rows` are zeros.
template <typename C>
struct PackedMatrix {
  Vector<C> rows[kPixelLanes];

  PackedMatrix(const C* from, int64_t count, int64_t width) {
    for (int64_t i = 0; i < kPixelLanes; ++i) rows[i] = i < count ? repeat_four(from + i * width) : Vector<C>{};
  }
};

// Sums over the packed pixels of a row, (kPixelLanes, lanes).
template <typename C>
struct PackedSums {
  Vector<C> rows[kPixelLanes] = {};

  // Adds the first rows and columns to a matrix in float64.
  void finish(double* to, int64_t column_stride, int64_t row_stride, int64_t columns,
              int64_t count = kPixelLanes) const {
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t lane = 0; lane < kLanes<C>; ++lane) {
        if (lane % kPixelLanes >= columns) continue;
        to[i * row_stride + lane % kPixelLanes * column_stride] += static_cast<double>(rows[i][lane]);
      }
    }
  }
};

// Stores the first lanes of every pixel, or loads them with copies in the other lanes; `weights` divides kPixelLanes.
template <typename C>
ALWAYS_INLINE void store_pixels(Vector<C> x, int64_t weights, C* to) {
  alignas(64) C lanes[kLanes<C>];
  store(lanes, x);
  for (int64_t pixel = 0; pixel < kPackedPixels<C>; ++pixel) {
    for (int64_t i = 0; i < weights; ++i) to[pixel * weights + i] = lanes[pixel * kPixelLanes + i];
  }
}
template <typename C>
ALWAYS_INLINE Vector<C> load_pixels(const C* from, int64_t weights) {
  alignas(64) C lanes[kLanes<C>];
  for (int64_t pixel = 0; pixel < kPackedPixels<C>; ++pixel) {
    for (int64_t i = 0; i < kPixelLanes; ++i)
      lanes[pixel * kPixelLanes + i] = from[pixel * weights + (i & (weights - 1))];
  }
  return load(lanes);
}

template <typename C, typename Body>
ALWAYS_INLINE void for_each_packed(const PackedPixels<C>& packed, const Body& body) {
  for (int64_t pixel = packed.first; pixel < packed.last; pixel += kPackedPixels<C>) body(pixel, packed.query(pixel));
}

// The activation, the hidden layer and the logits of the packed pixels' neighbours.
template <typename C>
class PackedMapping {
 public:
  explicit PackedMapping(const PairWorkspace<C>& at)
      : packed_(at.packed),
        floor_(repeat_four(at.parameters.floor)),
        weight1_(at.parameters.weight1, kPixelLanes, at.problem.padded_hidden()),
        weight2_(at.parameters.weight2, kPixelLanes, at.problem.padded_weights()),
        summand1_(at.parameters.summand1),
        summand_size_(at.problem.padded_hidden()) {}

  ALWAYS_INLINE Vector<C> activations(Vector<C> query, int64_t pixel, int64_t tap) const {
    return maximum(floor_, packed_.difference(query, pixel, tap));
  }
  ALWAYS_INLINE Vector<C> hidden(Vector<C> activations, int64_t tap) const {
    const Vector<C> summand = repeat_four(summand1_ + packed_.offset(tap) * summand_size_);
    return relu(multiply_lanes<C>(activations, weight1_.rows, summand));
  }
  ALWAYS_INLINE Vector<C> logits(Vector<C> hidden) const {
    return multiply_lanes<C>(hidden, weight2_.rows, Vector<C>{});
  }
  Vector<C> floor() const { return floor_; }

 private:
  const PackedPixels<C>& packed_;
  Vector<C> floor_;
  PackedMatrix<C> weight1_, weight2_;
  const C* summand1_;
  int64_t summand_size_;
};

template <typename C>
void packed_forward(const PairWorkspace<C>& at, const ValueWorkspace<C>& values) {
  const PackedPixels<C>& packed = at.packed;
  if (packed.first == packed.last) return;
  const PackedMapping<C> mapping(at);
  const C halvings = static_cast<C>(64 - __builtin_clzll(at.problem.footprint.taps()));
  const int64_t taps = packed.taps(), weights = at.problem.weight_channels, size = values.value_size;
  C* const logits = packed.weights();
  for_each_packed<C>(packed, [&](int64_t pixel, Vector<C> query) ALWAYS_INLINE_LAMBDA {
    Vector<C> largest = {};
    for (int64_t tap = 0; tap < taps; ++tap) {
      const Vector<C> logit = mapping.logits(mapping.hidden(mapping.activations(query, pixel, tap), tap));
      store(logits + tap * kLanes<C>, logit);
      largest = tap == 0 ? logit : maximum(logit, largest);
    }
    const Vector<C> exponent = largest + halvings;
    Vector<C> total = {};
    for (int64_t tap = 0; tap < taps; ++tap) {
      const Vector<C> weight = exp2(load(logits + tap * kLanes<C>) - exponent);
      store(logits + tap * kLanes<C>, weight);
      total += weight;
    }
    const Vector<C> normalizer = broadcast<C>(1) / total;
    for (int64_t c = 0; c < at.problem.value_channels; c += kLanes<C>) {
      Vector<C> sums[kPackedPixels<C>] = {};
      for (int64_t tap = 0; tap < taps; ++tap) {
        const Vector<C> weight = load(logits + tap * kLanes<C>);
        const C* const value = values.values + packed.neighbour(pixel, tap) * size + c;
        for_each_packed_pixel<C>([&](auto i) ALWAYS_INLINE_LAMBDA {
          sums[i.value] += repeat_pixel<i.value, C>(weight) * load(value + i.value * size);
        });
      }
      for_each_packed_pixel<C>([&](auto i) ALWAYS_INLINE_LAMBDA {
        store(values.output_row + (pixel + i.value) * values.output_size + c,
              sums[i.value] * repeat_pixel<i.value, C>(normalizer));
      });
    }
    store_pixels<C>(exponent, weights, values.logsumexp_row + pixel * weights);
    store_pixels<C>(total, weights, values.totals.data() + pixel * weights);
  });
}

// As differentiate_softmax() and what follows it.
template <typename C>
void packed_backward(const PairWorkspace<C>& at, const ValueWorkspace<C>& values, const SumsLayout& layout,
                     double* sums) {
  const PackedPixels<C>& packed = at.packed;
  if (packed.first == packed.last) return;
  const PairwiseTraining& problem = at.problem;
  const PackedMapping<C> mapping(at);
  const int64_t hidden_size = problem.padded_hidden(), columns = problem.padded_columns();
  const PackedMatrix<C> weight2(at.parameters.weight2_backward, problem.weight_channels, hidden_size);
  const PackedMatrix<C> weight1(at.parameters.weight1_backward, kPixelLanes, columns);
  const int64_t taps = packed.taps(), weights = problem.weight_channels, channels = problem.value_channels;
  const int64_t size = values.value_size, sums_size = problem.padded_value();
  PackedSums<C> products, of_weight2;
  for_each_packed<C>(packed, [&](int64_t pixel, Vector<C> query) ALWAYS_INLINE_LAMBDA {
    const C* const grad = values.grad_row + pixel * values.grad_size;
    const C* const output = values.output_row + pixel * values.output_size;
    Vector<C> dots[kPackedPixels<C>] = {}, query_sum = {};
    for (int64_t c = 0; c < channels; c += kLanes<C>) {
      for_each_packed_pixel<C>([&](auto i) ALWAYS_INLINE_LAMBDA {
        dots[i.value] += load(grad + i.value * values.grad_size + c) * load(output + i.value * values.output_size + c);
      });
    }
    const Vector<C> average = add_copies_of_four<C>(add_groups<C>(dots), weights);
    const Vector<C> logsumexp =
        load_pixels<C>(values.logsumexp_row + pixel * weights, weights) * static_cast<C>(kLog2e);
    for (int64_t tap = 0; tap < taps; ++tap) {
      const Vector<C> activations = mapping.activations(query, pixel, tap);
      const Vector<C> hidden = mapping.hidden(activations, tap);
      const Vector<C> weight = exp2(mapping.logits(hidden) - logsumexp);
      const int64_t neighbour = packed.neighbour(pixel, tap);
      for_each_packed_pixel<C>([&](auto i) ALWAYS_INLINE_LAMBDA { dots[i.value] = Vector<C>{}; });
      for (int64_t c = 0; c < channels; c += kLanes<C>) {
        const C* const value = values.values + neighbour * size + c;
        C* const value_sum = values.value_sums.data() + neighbour * sums_size + c;
        for_each_packed_pixel<C>([&](auto i) ALWAYS_INLINE_LAMBDA {
          const Vector<C> of_output = load(grad + i.value * values.grad_size + c);
          C* const to = value_sum + i.value * sums_size;
          dots[i.value] += of_output * load(value + i.value * size);
          store(to, load(to) + repeat_pixel<i.value, C>(weight) * of_output);
        });
      }
      const Vector<C> of_logits = weight * (add_copies_of_four<C>(add_groups<C>(dots), weights) - average);
      add_outer_products<C>(hidden, of_logits, of_weight2.rows);
      const Vector<C> passing = multiply_lanes<C>(of_logits, weight2.rows, Vector<C>{});
      const Vector<C> of_hidden = hidden > 0 ? passing : Vector<C>{};
      packed.add(tap, of_hidden);
      add_outer_products<C>(activations, of_hidden, products.rows);
      const Vector<C> arriving = multiply_lanes<C>(of_hidden, weight1.rows, Vector<C>{});
      const Vector<C> gradient = activations > mapping.floor() ? arriving : Vector<C>{};
      packed.scatter(pixel, tap, gradient);
      query_sum += gradient;
    }
    packed.store_query_sums(pixel, query_sum, at.query_sums.data(), columns);
  });
  packed.finish_taps(sums + layout.by_offset, hidden_size);
  products.finish(sums + layout.products, columns, 1, kPixelLanes);
  of_weight2.finish(sums + layout.weight2, hidden_size, 1, weights);
}

// weight1 is the matrix of the correction here, and summand1 its summands by offset.
template <typename C>
void packed_correction(const PairWorkspace<C>& at, const SumsLayout& layout, double* sums) {
  const PackedPixels<C>& packed = at.packed;
  if (packed.first == packed.last) return;
  const int64_t columns = at.problem.padded_columns();
  const PackedMatrix<C> matrix(at.parameters.weight1, kPixelLanes, columns);
  const Vector<C> floor = repeat_four(at.parameters.floor);
  for_each_packed<C>(packed, [&](int64_t pixel, Vector<C> query) ALWAYS_INLINE_LAMBDA {
    Vector<C> query_sum = {};
    for (int64_t tap = 0; tap < packed.taps(); ++tap) {
      const Vector<C> activations = maximum(floor, packed.difference(query, pixel, tap));
      const Vector<C> summand = repeat_four(at.parameters.summand1 + packed.offset(tap) * columns);
      const Vector<C> added = multiply_lanes<C>(activations, matrix.rows, summand);
      const Vector<C> gradient = activations > floor ? added : Vector<C>{};
      packed.scatter(pixel, tap, gradient);
      packed.add(tap, activations);
      query_sum += gradient;
    }
    packed.store_query_sums(pixel, query_sum, at.query_sums.data(), columns);
  });
  packed.finish_taps(sums + layout.by_offset, columns);
}

// Scatters scale * r + shift.
template <typename C>
void packed_scatter(const PairWorkspace<C>& at) {
  const PackedPixels<C>& packed = at.packed;
  for_each_packed<C>(packed, [&](int64_t pixel, Vector<C> query) ALWAYS_INLINE_LAMBDA {
    Vector<C> query_sum = {};
    for (int64_t tap = 0; tap < packed.taps(); ++tap) {
      const Vector<C> gradient = packed.difference(query, pixel, tap);
      packed.scatter(pixel, tap, gradient);
      query_sum += gradient;
    }
    packed.store_query_sums(pixel, query_sum, at.query_sums.data(), at.problem.padded_columns());
  });
}

template <typename C>
void packed_statistics(const PairWorkspace<C>& at, const SumsLayout& layout, double* sums) {
  const PackedPixels<C>& packed = at.packed;
  PackedSums<C> both;
  for_each_packed<C>(packed, [&](int64_t pixel, Vector<C> query) ALWAYS_INLINE_LAMBDA {
    for (int64_t tap = 0; tap < packed.taps(); ++tap) {
      const Vector<C> x = packed.difference(query, pixel, tap);
      both.rows[0] += x, both.rows[1] += x * x;
    }
  });
  if (packed.first < packed.last) both.finish(sums + layout.products, 1, at.problem.padded_columns(), kPixelLanes, 2);
}

template <typename C>
void packed_moments(const PairWorkspace<C>& at, const SumsLayout& layout, double* sums) {
  const PackedPixels<C>& packed = at.packed;
  if (packed.first == packed.last) return;
  const int64_t columns = at.problem.padded_columns();
  const Vector<C> floor = repeat_four(at.parameters.floor);
  PackedSums<C> products;
  for_each_packed<C>(packed, [&](int64_t pixel, Vector<C> query) ALWAYS_INLINE_LAMBDA {
    for (int64_t tap = 0; tap < packed.taps(); ++tap) {
      const Vector<C> activations = maximum(floor, packed.difference(query, pixel, tap));
      packed.add(tap, activations);
      add_outer_products<C>(activations, activations, products.rows);
    }
  });
  packed.finish_taps(sums + layout.by_offset, columns);
  products.finish(sums + layout.products, 1, columns, kPixelLanes);
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PAIRWISE_TRAINING_PACKED_ROWS_H
