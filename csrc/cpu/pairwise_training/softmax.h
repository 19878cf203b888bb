// Softmax and aggregation of the pairs of a block. Logits are in base 2.
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
  Scratch<C> totals;               // of the weights of a row
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
        totals(backward ? 1 : problem.width() * problem.weight_channels + kLanes<C>),
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
// relative to 2^exponent, keeps them if another follows, and returns their total.
template <int kShare, bool kFirst, bool kLast, typename C>
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
      if constexpr (!kLast) store(logits + r * width, weight);
      total += weight;
    }
    const C* const value = values + neighbours[r] * value_size;
#pragma GCC unroll 8
    for (int s = 0; s < kShare; ++s) sums[s] += weight * load(value + s * step);
  }
  return total;
}

constexpr Constant<true> yes{};
constexpr Constant<false> no{};

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
      const auto chunk = [&](auto share, auto first, auto last, int64_t c) ALWAYS_INLINE_LAMBDA {
        Vector<C> sums[share.value];
        const Vector<C> sum = aggregate_pairs<share.value, first.value, last.value>(
            block, begin, end, exponent, logits, width, at.values + c, at.value_size, int64_t{width}, sums);
        if constexpr (first.value) total = sum, normalizer = broadcast<C>(1) / total;
#pragma GCC unroll 8
        for (int s = 0; s < share.value; ++s) store(output + c + s * width, sums[s] * normalizer);
      };
      const int64_t vectors = ceil_div(channels - e, int64_t{width});
      if (vectors == 8) {
        chunk(Constant<8>{}, yes, yes, e);
      } else if (vectors == 4) {
        chunk(Constant<4>{}, yes, yes, e);
      } else if (vectors == 1) {
        chunk(Constant<1>{}, yes, yes, e);
      } else {
        chunk(Constant<1>{}, yes, no, e);
        for (int64_t c = e + width; c < channels; c += width) chunk(Constant<1>{}, no, no, c);
      }
      const int64_t at_pixel = p * weights + e;
      if (e + kLanes<C> <= weights) {
        store(at.logsumexp_row + at_pixel, exponent), store(at.totals.data() + at_pixel, total);
      } else if (e < weights) {
        const SomeLanes lanes{0, weights - e};
        store(at.logsumexp_row + at_pixel, exponent, lanes), store(at.totals.data() + at_pixel, total, lanes);
      }
    }
  }
}

// The natural logarithms of the sums of a row, of which the exponents are there already.
template <typename C>
void finish_logsumexp(const PairwiseTraining& problem, const ValueWorkspace<C>& at) {
  const int64_t count = problem.width() * problem.weight_channels;
  const auto finish = [&](int64_t i, auto lanes) ALWAYS_INLINE_LAMBDA {
    const Vector<C> logarithm = load(at.logsumexp_row + i, lanes) + log2(load(at.totals.data() + i));
    store(at.logsumexp_row + i, logarithm * static_cast<C>(kLn2), lanes);
  };
  int64_t i = 0;
  for (; i + kLanes<C> <= count; i += kLanes<C>) finish(i, AllLanes{});
  if (i < count) finish(i, SomeLanes{0, count - i});
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PAIRWISE_TRAINING_SOFTMAX_H
