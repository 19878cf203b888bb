// The gradients of the softmax and of the values of a block of pairs.
#if defined(SA_LAYERS_CPU_PAIRWISE_TRAINING_SOFTMAX_GRADIENT_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PAIRWISE_TRAINING_SOFTMAX_GRADIENT_H
#undef SA_LAYERS_CPU_PAIRWISE_TRAINING_SOFTMAX_GRADIENT_H
#else
#define SA_LAYERS_CPU_PAIRWISE_TRAINING_SOFTMAX_GRADIENT_H
#endif

#include "cpu/pairwise_training/softmax.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Lanes from other ones: lane i from lane i ^ kStep, and from lane i & ~kStep.
template <int kStep, typename C>
ALWAYS_INLINE Vector<C> swap_lanes(Vector<C> x) {
#ifdef __clang__
  Vector<C> swapped;
  for (int i = 0; i < kLanes<C>; ++i) swapped[i] = x[i ^ kStep];
  return swapped;
#else
  typename VectorOf<C>::integers index;
  for (int i = 0; i < kLanes<C>; ++i) index[i] = i ^ kStep;
  return __builtin_shuffle(x, index);
#endif
}
template <int kStep, typename C>
ALWAYS_INLINE Vector<C> copy_lanes(Vector<C> x) {
#ifdef __clang__
  Vector<C> copied;
  for (int i = 0; i < kLanes<C>; ++i) copied[i] = x[i & ~kStep];
  return copied;
#else
  typename VectorOf<C>::integers index;
  for (int i = 0; i < kLanes<C>; ++i) index[i] = i & ~kStep;
  return __builtin_shuffle(x, index);
#endif
}

// The first `weights` lanes, again and again, for a number of weights that divides the lanes.
template <typename C>
ALWAYS_INLINE Vector<C> repeat_lanes(Vector<C> x, int64_t weights) {
  if constexpr (kLanes<C> >= 16) {
    if (weights <= 8) x = copy_lanes<8, C>(x);
  }
  if constexpr (kLanes<C> >= 8) {
    if (weights <= 4) x = copy_lanes<4, C>(x);
  }
  if constexpr (kLanes<C> >= 4) {
    if (weights <= 2) x = copy_lanes<2, C>(x);
  }
  if (weights <= 1) x = copy_lanes<1, C>(x);
  return x;
}

// Sums over lanes that belong to one weight, in all of these lanes, for a number of weights that divides the lanes.
template <typename C>
ALWAYS_INLINE Vector<C> add_copies(Vector<C> x, int64_t weights) {
  if constexpr (kLanes<C> >= 16) {
    if (weights <= 8) x += swap_lanes<8, C>(x);
  }
  if constexpr (kLanes<C> >= 8) {
    if (weights <= 4) x += swap_lanes<4, C>(x);
  }
  if constexpr (kLanes<C> >= 4) {
    if (weights <= 2) x += swap_lanes<2, C>(x);
  }
  if (weights <= 1) x += swap_lanes<1, C>(x);
  return x;
}

// The same where the lanes of a pixel are four.
template <typename C>
ALWAYS_INLINE Vector<C> add_copies_of_four(Vector<C> x, int64_t weights) {
  if (weights <= 2) x += swap_lanes<2, C>(x);
  if (weights <= 1) x += swap_lanes<1, C>(x);
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
    const C* const logsumexp_of = at.logsumexp_row + p * weights;
    if (weights >= kLanes<C> && in_vectors) {
      for (int64_t e = 0; e < width; e += kLanes<C>) {
        store(logsumexps + e, load(logsumexp_of + e) * static_cast<C>(kLog2e));
      }
    } else if (in_vectors) {
      const Vector<C> all = load(logsumexp_of, SomeLanes{0, weights}) * static_cast<C>(kLog2e);
      store(logsumexps, repeat_lanes<C>(all, weights));
    } else {
      for (int64_t i = 0; i < width; ++i) logsumexps[i] = logsumexp_of[i % weights] * static_cast<C>(kLog2e);
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

#endif  // SA_LAYERS_CPU_PAIRWISE_TRAINING_SOFTMAX_GRADIENT_H
