// The sums over the pairs of an output row that the statistics of the norms are made of.
#if defined(SA_LAYERS_CPU_PAIRWISE_TRAINING_MOMENTS_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PAIRWISE_TRAINING_MOMENTS_H
#undef SA_LAYERS_CPU_PAIRWISE_TRAINING_MOMENTS_H
#else
#define SA_LAYERS_CPU_PAIRWISE_TRAINING_MOMENTS_H
#endif

#include "cpu/pairwise_training/rows.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// The sums of r - centre and of its square.
template <typename C, typename Columns>
ALWAYS_INLINE void add_squares(const PairBlock& block, const C* rows, Columns columns, C* first, C* second) {
  const float* const multiplicities = block.multiplicities;
  const int64_t count = block.count;
  for (int64_t c = 0; c < columns; c += kLanes<C>) {
    Vector<C> sum = load(first + c), squares = load(second + c);
    for (int64_t r = 0; r < count; ++r) {
      const Vector<C> x = load(rows + r * columns + c), repeated = static_cast<C>(multiplicities[r]) * x;
      sum += repeated, squares += repeated * x;
    }
    store(first + c, sum), store(second + c, squares);
  }
}

// The same for differences, which need not be kept.
template <typename C, typename Columns>
ALWAYS_INLINE void add_squares_of_differences(const PairWorkspace<C>& at, const PairBlock& block, Columns columns,
                                              C* first, C* second) {
  const float* const multiplicities = block.multiplicities;
  const int32_t* const neighbours = block.neighbours;
  for (int64_t c = 0; c < columns; c += kLanes<C>) {
    const C *const keys = at.keys.data() + c, *const queries = at.queries.data() + c;
    // Two chains of sums, since each waits for the one before it.
    Vector<C> sums[2] = {load(first + c)}, squares[2] = {load(second + c)};
    for (int64_t p = block.first_pixel; p < block.end_pixel; ++p) {
      const Vector<C> query = load(queries + p * columns);
      const auto add = [&](int64_t r, int chain) ALWAYS_INLINE_LAMBDA {
        const Vector<C> x = query - load(keys + neighbours[r] * columns);
        const Vector<C> repeated = static_cast<C>(multiplicities[r]) * x;
        sums[chain] += repeated, squares[chain] += repeated * x;
      };
      const int64_t end = block.begin(p + 1);
      int64_t r = block.begin(p);
      for (; r + 2 <= end; r += 2) add(r, 0), add(r + 1, 1);
      if (r < end) add(r, 0);
    }
    store(first + c, sums[0] + sums[1]), store(second + c, squares[0] + squares[1]);
  }
}

template <typename C, typename Sizes>
void statistics_of_row(const PairWorkspace<C>& at, BandSums<C>& sums, const Sizes& sizes) {
  at.pairs.for_each_block([&](const PairBlock& block) {
    C *const first = sums.products.data(), *const second = first + sizes.columns;
    if (at.problem.is_difference()) {
      add_squares_of_differences(at, block, sizes.columns, first, second);
    } else {
      relate(at, block, sizes.columns);
      add_squares(block, at.features.data(), sizes.columns, first, second);
    }
    sums.count_block();
  });
}

// The sum of a - centre, of the products of its channels, and by offset.
template <typename C, typename Sizes>
void moments_of_row(const PairWorkspace<C>& at, BandSums<C>& sums, const Sizes& sizes) {
  at.pairs.for_each_block([&](const PairBlock& block) {
    relate(at, block, sizes.columns);
    const C* repeated = at.features.data();
    if (block.has_repeats) {
      repeat_pairs(block, at.features.data(), sizes.columns, at.products.data());
      repeated = at.products.data();
    }
    sum_symmetric_products(block.count, at.features.data(), repeated, sizes.columns, at.problem.columns(),
                           sums.products.data());
    add_by_offset(at.problem, block, repeated, sizes.columns, sums.by_offset.data());
    sums.count_block();
  });
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PAIRWISE_TRAINING_MOMENTS_H
