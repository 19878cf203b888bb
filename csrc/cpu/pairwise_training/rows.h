// The passes over the pairs of an output row, whose queries, keys and values are in the workspace.
#if defined(SA_LAYERS_CPU_PAIRWISE_TRAINING_ROWS_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PAIRWISE_TRAINING_ROWS_H
#undef SA_LAYERS_CPU_PAIRWISE_TRAINING_ROWS_H
#else
#define SA_LAYERS_CPU_PAIRWISE_TRAINING_ROWS_H
#endif

#include "cpu/pairwise_training/relation.h"
#include "cpu/pairwise_training/softmax_gradient.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Padded columns of a pair, of the hidden layer and of the logits.
template <typename Columns, typename Hidden, typename Weights>
struct PairSizes {
  Columns columns;
  Hidden hidden;
  Weights weights;
};

// Calls body(sizes) with the sizes of SAN's stages as constants, or with any others.
template <typename C, typename Body>
ALWAYS_INLINE void with_pair_sizes(const PairwiseTraining& problem, const Body& body) {
  const int64_t columns = problem.padded_columns(), hidden = problem.padded_hidden(),
                weights = problem.padded_weights();
  if constexpr (sizeof(C) == 4 && kLanes<C> >= 8) {
    const auto is = [&](int64_t c, int64_t w) { return columns == c && hidden == c && weights == w; };
    const auto call = [&](auto c, auto w) {
      body(PairSizes<FixedSize<c.value>, FixedSize<c.value>, FixedSize<w.value>>{});
    };
    constexpr int64_t kLeast = kLanes<C>;
    if (is(16, kLeast)) return call(Constant<int64_t{16}>{}, Constant<kLeast>{});
    if (is(32, 16)) return call(Constant<int64_t{32}>{}, Constant<int64_t{16}>{});
    if (is(64, 32)) return call(Constant<int64_t{64}>{}, Constant<int64_t{32}>{});
    if (is(128, 64)) return call(Constant<int64_t{128}>{}, Constant<int64_t{64}>{});
  }
  body(PairSizes<AnySize, AnySize, AnySize>{{columns}, {hidden}, {weights}});
}

// float sums of a band over some blocks of pairs, and where they are flushed to.
template <typename C>
struct BandSums {
  FlushedSums<C> by_offset, products, weight2;
  const SumsLayout& layout;
  double* to = nullptr;
  int64_t blocks = 0;

  BandSums(const PairwiseTraining& problem, const SumsLayout& layout_)
      : by_offset(layout_.products - layout_.by_offset),
        products(layout_.weight2 - layout_.products),
        weight2(layout_.features - layout_.weight2),
        layout(layout_) {}

  void count_block() {
    if (++blocks == kBlocksOfASum) flush();
  }
  void flush() {
    by_offset.flush(to + layout.by_offset);
    products.flush(to + layout.products);
    weight2.flush(to + layout.weight2);
    blocks = 0;
  }
};

// Adds the rows of the pairs to the rows of a table by offset, or to a single one.
template <typename C, typename Width>
ALWAYS_INLINE void add_by_offset(const PairwiseTraining& problem, const PairBlock& block, const C* rows, Width width,
                                 C* table) {
  const int64_t count = block.count;
  if (problem.by_offset) {
    const int32_t* const offsets = block.offsets;
    for (int64_t r = 0; r < count; ++r) {
      C* const to = table + offsets[r] * width;
      for (int64_t c = 0; c < width; c += kLanes<C>) store(to + c, load(to + c) + load(rows + r * width + c));
    }
    return;
  }
  for (int64_t c = 0; c < width; c += kLanes<C>) {
    Vector<C> sum = load(table + c);
    for (int64_t r = 0; r < count; ++r) sum += load(rows + r * width + c);
    store(table + c, sum);
  }
}

// rows *= multiplicity
template <typename C, typename Width>
ALWAYS_INLINE void repeat_pairs(const PairBlock& block, const C* rows, Width width, C* to) {
  const int64_t count = block.count;
  const float* const multiplicities = block.multiplicities;
  for (int64_t r = 0; r < count; ++r) {
    const Vector<C> multiplicity = broadcast<C>(static_cast<C>(multiplicities[r]));
    for (int64_t c = 0; c < width; c += kLanes<C>) {
      store(to + r * width + c, multiplicity * load(rows + r * width + c));
    }
  }
}

// The sums of r - centre and of its square.
template <typename C, typename Columns>
ALWAYS_INLINE void add_squares(const PairBlock& block, int64_t begin, int64_t end, const C* rows, Columns columns,
                               C* first, C* second) {
  const float* const multiplicities = block.multiplicities;
  for (int64_t c = 0; c < columns; c += kLanes<C>) {
    Vector<C> sum = load(first + c), squares = load(second + c);
    for (int64_t r = begin; r < end; ++r) {
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
      add_squares(block, 0, block.count, at.features.data(), sizes.columns, first, second);
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

// The hidden layer, in the workspace's products, and the logits.
template <typename C, typename Sizes>
ALWAYS_INLINE void map_pairs(const PairWorkspace<C>& at, const PairBlock& block, C* logits, const Sizes& sizes) {
  const PairParameters<C>& parameters = at.parameters;
  C* const hidden = at.products.data();
  relate(at, block, sizes.columns);
  multiply_pairs(
      at.features.data(), sizes.columns, block.count, at.problem.columns(), parameters.weight1, sizes.hidden,
      [&](int64_t r) ALWAYS_INLINE_LAMBDA { return parameters.summand1 + int64_t{block.offsets[r]} * sizes.hidden; },
      [&](int64_t r, int64_t c, Vector<C> sum)
          ALWAYS_INLINE_LAMBDA { store(hidden + r * sizes.hidden + c, relu(sum)); });
  multiply_pairs(
      hidden, sizes.hidden, block.count, at.problem.hidden, parameters.weight2, sizes.weights,
      [](int64_t) ALWAYS_INLINE_LAMBDA -> const C* { return nullptr; },
      [&](int64_t r, int64_t c, Vector<C> sum) ALWAYS_INLINE_LAMBDA { store(logits + r * sizes.weights + c, sum); });
}

template <typename C, typename Sizes>
void forward_row(const PairWorkspace<C>& at, const ValueWorkspace<C>& values, const Sizes& sizes) {
  at.pairs.for_each_block([&](const PairBlock& block) {
    map_pairs(at, block, values.logits.data(), sizes);
    softmax_and_aggregate_pairs(at.problem, block, values, sizes.weights);
  });
  finish_logsumexp(at.problem, values);
}

// `hidden_gradients` is a workspace for the hidden layer of a block.
template <typename C, typename Sizes>
void backward_row(const PairWorkspace<C>& at, const ValueWorkspace<C>& values, C* hidden_gradients, BandSums<C>& sums,
                  const Sizes& sizes) {
  const PairwiseTraining& problem = at.problem;
  const PairParameters<C>& parameters = at.parameters;
  const auto zero = [](int64_t) ALWAYS_INLINE_LAMBDA -> const C* { return nullptr; };
  at.pairs.for_each_block([&](const PairBlock& block) {
    C *const logits = values.logits.data(), *const hidden = at.products.data(), *const features = at.features.data();
    map_pairs(at, block, logits, sizes);
    differentiate_softmax(problem, block, values, sizes.weights);
    sum_products(block.count, logits, sizes.weights, problem.weight_channels, hidden, sizes.hidden,
                 sums.weight2.data());
    multiply_pairs(logits, sizes.weights, block.count, problem.weight_channels, parameters.weight2_backward,
                   sizes.hidden, zero, [&](int64_t r, int64_t c, Vector<C> sum) ALWAYS_INLINE_LAMBDA {
                     const Vector<C> y = load(hidden + r * sizes.hidden + c);
                     store(hidden_gradients + r * sizes.hidden + c, y > 0 ? sum : Vector<C>{});
                   });
    add_by_offset(problem, block, hidden_gradients, sizes.hidden, sums.by_offset.data());
    sum_products(block.count, hidden_gradients, sizes.hidden, problem.hidden, features, sizes.columns,
                 sums.products.data());
    C* const gradients = at.products.data();
    multiply_pairs(hidden_gradients, sizes.hidden, block.count, problem.hidden, parameters.weight1_backward,
                   sizes.columns, zero, [&](int64_t r, int64_t c, Vector<C> sum) ALWAYS_INLINE_LAMBDA {
                     const Vector<C> a = load(features + r * sizes.columns + c), floor = load(parameters.floor + c);
                     store(gradients + r * sizes.columns + c, a > floor ? sum : Vector<C>{});
                   });
    scatter(at, block, gradients, sizes.columns);
    sums.count_block();
  });
}

// weight1 is the matrix of the correction here, and summand1 its summands by offset.
template <typename C, typename Sizes>
void correct_row(const PairWorkspace<C>& at, BandSums<C>& sums, const Sizes& sizes) {
  const PairwiseTraining& problem = at.problem;
  const PairParameters<C>& parameters = at.parameters;
  at.pairs.for_each_block([&](const PairBlock& block) {
    C *const features = at.features.data(), *const gradients = at.products.data();
    relate(at, block, sizes.columns);
    multiply_pairs(
        features, sizes.columns, block.count, problem.columns(), parameters.weight1, sizes.columns,
        [&](int64_t r) ALWAYS_INLINE_LAMBDA { return parameters.summand1 + int64_t{block.offsets[r]} * sizes.columns; },
        [&](int64_t r, int64_t c, Vector<C> sum) ALWAYS_INLINE_LAMBDA {
          const Vector<C> a = load(features + r * sizes.columns + c), floor = load(parameters.floor + c);
          store(gradients + r * sizes.columns + c, a > floor ? sum : Vector<C>{});
        });
    if (block.has_repeats) repeat_pairs(block, gradients, sizes.columns, gradients);
    scatter(at, block, gradients, sizes.columns);
    if (problem.by_offset) {
      if (block.has_repeats) repeat_pairs(block, features, sizes.columns, features);
      add_by_offset(problem, block, features, sizes.columns, sums.by_offset.data());
    }
    sums.count_block();
  });
}

// Scatters scale * r + shift.
template <typename C, typename Sizes>
void scatter_row(const PairWorkspace<C>& at, const Sizes& sizes) {
  at.pairs.for_each_block([&](const PairBlock& block) {
    if (at.problem.is_difference()) return scatter_features(at, block, sizes.columns);
    C* const features = at.features.data();
    relate(at, block, sizes.columns);
    if (block.has_repeats) repeat_pairs(block, features, sizes.columns, features);
    scatter(at, block, features, sizes.columns);
  });
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PAIRWISE_TRAINING_ROWS_H
