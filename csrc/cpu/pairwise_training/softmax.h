// Softmax and aggregation of the pairs of a block, and their gradients. Logits are in base 2.
#if defined(SA_LAYERS_CPU_PAIRWISE_TRAINING_SOFTMAX_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PAIRWISE_TRAINING_SOFTMAX_H
#undef SA_LAYERS_CPU_PAIRWISE_TRAINING_SOFTMAX_H
#else
#define SA_LAYERS_CPU_PAIRWISE_TRAINING_SOFTMAX_H
#endif

#include "cpu/pairwise_training/pairs.h"
#include "cpu/simd/math.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

constexpr double kLn2 = 0.6931471805599453, kLog2e = 1.4426950408889634;

// What the softmax needs besides the pairs.
template <typename C>
struct ValueWorkspace {
  Scratch<C> logits;               // of the pairs of a block, then weights, then gradients of the logits
  Scratch<C> sums;                 // sums over channels that share a weight, of the pairs of a block
  Scratch<C> row;                  // of a pixel: as wide as the logits, twice
  Scratch<C> value_copy;           // of the pixels of the window, where the map cannot be read in place
  Scratch<C> value_sums;           // gradients of the values of the window
  Scratch<C> output, grad_output;  // rows, where the maps cannot be read or written in place
  // Where a row, and a window of values, are.
  const C* values = nullptr;
  int64_t value_size = 0;
  C* output_row = nullptr;
  const C* grad_row = nullptr;
  int64_t output_size = 0, grad_size = 0;
  C* logsumexp_row = nullptr;

  ValueWorkspace(const PairwiseTraining& problem, bool backward)
      : logits(RowPairs::max_block_rows(problem) * problem.padded_weights()),
        sums(backward ? RowPairs::max_block_rows(problem) * problem.padded_weights() : 1),
        row(2 * problem.padded_weights()),
        value_copy(problem.window_pixels() * problem.padded_value()),
        value_sums(backward ? problem.window_pixels() * problem.padded_value() : 1),
        output(problem.width() * problem.padded_value()),
        grad_output(backward ? problem.width() * problem.padded_value() : 1) {
    clear(logits.data(), RowPairs::max_block_rows(problem) * problem.padded_weights());
  }
};

// log2 of positive normal numbers: x = 2^n * m with sqrt(1/2) <= m < sqrt(2), and log(m) = 2 artanh((m - 1) / (m + 1)).
ALWAYS_INLINE Vector<float> log2(Vector<float> x) {
  const Bits exponent = (bit_cast<Bits>(x) - 0x3f3504f3) >> 23;
  const Vector<float> m = bit_cast<Vector<float>>(bit_cast<Bits>(x) - (exponent << 23));
  const Vector<float> t = (m - 1.0f) / (m + 1.0f), q = t * t;
  Vector<float> y = q * 0.320598870f + 0.412198603f;
  y = y * q + 0.577078020f;
  y = y * q + 0.961796694f;
  y = y * q + 2.88539008f;
  const Vector<float> result = __builtin_convertvector(exponent, Vector<float>) + t * y;
  return x == x ? result : x;
}
inline Vector<double> log2(Vector<double> x) {
  for (int lane = 0; lane < kLanes<double>; ++lane) x[lane] = __builtin_log2(x[lane]);
  return x;
}

// Weighted sums of kShare vectors of values, `step` channels apart, of one pixel. The first call computes the weights,
// relative to 2^exponent, and keeps them; it returns their total.
template <int kShare, bool kFirst, typename C>
ALWAYS_INLINE Vector<C> aggregate_pairs(const PairBlock& block, int64_t begin, int64_t end, Vector<C> exponent,
                                        C* logits, int64_t width, const C* values, int64_t value_size, int64_t step,
                                        Vector<C> (&sums)[kShare]) {
  const int32_t* const neighbours = block.neighbours;
  const float* const multiplicities = block.multiplicities;
  Vector<C> total = {};
#pragma GCC unroll 8
  for (int s = 0; s < kShare; ++s) sums[s] = Vector<C>{};
  for (int64_t r = begin; r < end; ++r) {
    Vector<C> weight = load(logits + r * width);
    if constexpr (kFirst) {
      weight = static_cast<C>(multiplicities[r]) * exp2(weight - exponent);
      store(logits + r * width, weight);
      total += weight;
    }
    const C* const value = values + neighbours[r] * value_size;
#pragma GCC unroll 8
    for (int s = 0; s < kShare; ++s) sums[s] += weight * load(value + s * step);
  }
  return total;
}

template <typename C, typename Width>
ALWAYS_INLINE void softmax_and_aggregate_pairs(const PairwiseTraining& problem, const PairBlock& block,
                                               const ValueWorkspace<C>& at, Width width) {
  const C halvings = static_cast<C>(64 - __builtin_clzll(problem.footprint.taps()));
  const int64_t channels = problem.padded_value(), weights = problem.weight_channels;
  for (int64_t p = block.first_pixel; p < block.end_pixel; ++p) {
    const int64_t begin = block.begin(p), end = block.begin(p + 1);
    C* const output = at.output_row + p * at.output_size;
    for (int64_t e = 0; e < min(int64_t{width}, channels); e += kLanes<C>) {
      C* const logits = at.logits.data() + e;
      Vector<C> largest = load(logits + begin * width);
      for (int64_t r = begin + 1; r < end; ++r) largest = maximum(load(logits + r * width), largest);
      const Vector<C> exponent = largest + halvings;
      Vector<C> total = {}, normalizer = {};
      const auto chunk = [&](auto share, auto first, int64_t c) ALWAYS_INLINE_LAMBDA {
        Vector<C> sums[share.value];
        const Vector<C> sum = aggregate_pairs<share.value, first.value>(
            block, begin, end, exponent, logits, width, at.values + c, at.value_size, int64_t{width}, sums);
        if constexpr (first.value) total = sum, normalizer = broadcast<C>(1) / total;
#pragma GCC unroll 8
        for (int s = 0; s < share.value; ++s) store(output + c + s * width, sums[s] * normalizer);
      };
      const int64_t vectors = ceil_div(channels - e, int64_t{width});
      if (vectors == 8) {
        chunk(Constant<8>{}, Constant<true>{}, e);
      } else if (vectors == 4) {
        chunk(Constant<4>{}, Constant<true>{}, e);
      } else {
        chunk(Constant<1>{}, Constant<true>{}, e);
        for (int64_t c = e + width; c < channels; c += width) chunk(Constant<1>{}, Constant<false>{}, c);
      }
      const Vector<C> logarithm = (exponent + log2(total)) * static_cast<C>(kLn2);
      C* const to = at.logsumexp_row + p * weights + e;
      if (e + kLanes<C> <= weights) {
        store(to, logarithm);
      } else if (e < weights) {
        store(to, logarithm, SomeLanes{0, weights - e});
      }
    }
  }
}

// Every lane becomes the sum of the lanes that are a multiple of kStep away; lanes are in groups of powers of two.
template <int kStep, typename C>
ALWAYS_INLINE Vector<C> add_lanes(Vector<C> x) {
  typename VectorOf<C>::integers index;
  for (int i = 0; i < kLanes<C>; ++i) index[i] = i ^ kStep;
#ifdef __clang__
  Vector<C> swapped;
  for (int i = 0; i < kLanes<C>; ++i) swapped[i] = x[i ^ kStep];
  return x + swapped;
#else
  return x + __builtin_shuffle(x, index);
#endif
}

// Sums over lanes that belong to one weight, in all of these lanes, for a number of weights that divides the lanes.
template <typename C>
ALWAYS_INLINE Vector<C> add_copies(Vector<C> x, int64_t weights) {
  if constexpr (kLanes<C> >= 16) {
    if (weights <= 8) x = add_lanes<8, C>(x);
  }
  if constexpr (kLanes<C> >= 8) {
    if (weights <= 4) x = add_lanes<4, C>(x);
  }
  if constexpr (kLanes<C> >= 4) {
    if (weights <= 2) x = add_lanes<2, C>(x);
  }
  if (weights <= 1) x = add_lanes<1, C>(x);
  return x;
}

// The same where copies lie in any lanes of a row.
template <typename C>
void add_copies_of_row(C* row, int64_t width, int64_t weights) {
  for (int64_t g = 0; g < weights; ++g) {
    C sum = 0;
    for (int64_t i = g; i < width; i += weights) sum += row[i];
    for (int64_t i = g; i < width; i += weights) row[i] = sum;
  }
}

// The weights of a pixel's pairs from their logits, the gradients of the weights, and the gradients of kShare vectors
// of the neighbours' values.
template <int kShare, bool kFirst, bool kLast, typename C, typename Finish>
ALWAYS_INLINE void differentiate_pairs(const PairBlock& block, int64_t begin, int64_t end, Vector<C> logsumexp,
                                       C* logits, C* sums, int64_t width, const C* values, int64_t value_size,
                                       C* value_sums, int64_t sums_size, int64_t step, const C* grads,
                                       const Finish& finish) {
  const int32_t* const neighbours = block.neighbours;
  const float* const multiplicities = block.multiplicities;
  Vector<C> grad[kShare];
#pragma GCC unroll 8
  for (int s = 0; s < kShare; ++s) grad[s] = load(grads + s * step);
  for (int64_t r = begin; r < end; ++r) {
    Vector<C> weight = load(logits + r * width);
    if constexpr (kFirst) {
      weight = static_cast<C>(multiplicities[r]) * exp2(weight - logsumexp);
      if constexpr (!kLast) store(logits + r * width, weight);
    }
    const C* const value = values + neighbours[r] * value_size;
    C* const value_sum = value_sums + neighbours[r] * sums_size;
    Vector<C> products = {};
#pragma GCC unroll 8
    for (int s = 0; s < kShare; ++s) {
      products += grad[s] * load(value + s * step);
      store(value_sum + s * step, load(value_sum + s * step) + weight * grad[s]);
    }
    if constexpr (!kFirst) products += load(sums + r * width);
    if constexpr (kLast) {
      finish(r, weight, products);
    } else {
      store(sums + r * width, products);
    }
  }
}

// Replaces the logits of a block by their gradients, in the first weight_channels columns at least, and adds the
// gradients of the values.
template <typename C, typename Width>
ALWAYS_INLINE void differentiate_softmax(const PairwiseTraining& problem, const PairBlock& block,
                                         const ValueWorkspace<C>& at, Width width) {
  const int64_t channels = problem.padded_value(), weights = problem.weight_channels, sums_size = channels;
  const bool in_vectors = weights % kLanes<C> == 0 || kLanes<C> % weights == 0;
  C *const averages = at.row.data(), *const logsumexps = averages + width;
  for (int64_t p = block.first_pixel; p < block.end_pixel; ++p) {
    const int64_t begin = block.begin(p), end = block.begin(p + 1);
    const C* const grad = at.grad_row + p * at.grad_size;
    const C* const output = at.output_row + p * at.output_size;
    for (int64_t e = 0; e < width; e += kLanes<C>) {
      Vector<C> average = {};
      for (int64_t c = e; c < channels; c += width) average += load(grad + c) * load(output + c);
      store(averages + e, in_vectors ? add_copies<C>(average, weights) : average);
    }
    if (!in_vectors) add_copies_of_row(averages, width, weights);
    for (int64_t i = 0; i < width; i += weights) {
      for (int64_t g = 0; g < weights; ++g) {
        logsumexps[i + g] = at.logsumexp_row[p * weights + g] * static_cast<C>(kLog2e);
      }
    }
    for (int64_t e = 0; e < width; e += kLanes<C>) {
      C *const logits = at.logits.data() + e, *const sums = at.sums.data() + e;
      const Vector<C> logsumexp = load(logsumexps + e), average = load(averages + e);
      const auto finish = [&](int64_t r, Vector<C> weight, Vector<C> products) ALWAYS_INLINE_LAMBDA {
        if (in_vectors) {
          store(logits + r * width, weight * (add_copies<C>(products, weights) - average));
        } else {
          store(logits + r * width, weight), store(sums + r * width, products);
        }
      };
      const auto chunk = [&](auto share, auto first, auto last, int64_t c) ALWAYS_INLINE_LAMBDA {
        differentiate_pairs<share.value, first.value, last.value>(
            block, begin, end, logsumexp, logits, sums, width, at.values + c, at.value_size, at.value_sums.data() + c,
            sums_size, int64_t{width}, grad + c, finish);
      };
      const int64_t vectors = e < channels ? ceil_div(channels - e, int64_t{width}) : 0;
      constexpr Constant<true> yes;
      constexpr Constant<false> no;
      if (vectors == 8) {
        chunk(Constant<8>{}, yes, yes, e);
      } else if (vectors == 4) {
        chunk(Constant<4>{}, yes, yes, e);
      } else if (vectors == 1) {
        chunk(Constant<1>{}, yes, yes, e);
      } else if (vectors > 1) {
        chunk(Constant<1>{}, yes, no, e);
        int64_t c = e + width;
        for (; c + width < channels; c += width) chunk(Constant<1>{}, no, no, c);
        chunk(Constant<1>{}, no, yes, c);
      } else {
        for (int64_t r = begin; r < end; ++r) {
          const Vector<C> logit = load(logits + r * width);
          finish(r, static_cast<C>(block.multiplicities[r]) * exp2(logit - logsumexp), Vector<C>{});
        }
      }
    }
    if (in_vectors) continue;
    for (int64_t r = begin; r < end; ++r) {
      C *const logits = at.logits.data() + r * width, *const sums = at.sums.data() + r * width;
      add_copies_of_row(sums, width, weights);
      for (int64_t g = 0; g < weights; ++g) logits[g] *= sums[g] - averages[g];
    }
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PAIRWISE_TRAINING_SOFTMAX_H
