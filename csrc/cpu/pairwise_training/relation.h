// The features of the pairs of a block, and the way back: sums of their gradients by pixel and by neighbour.
#if defined(SA_LAYERS_CPU_PAIRWISE_TRAINING_RELATION_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PAIRWISE_TRAINING_RELATION_H
#undef SA_LAYERS_CPU_PAIRWISE_TRAINING_RELATION_H
#else
#define SA_LAYERS_CPU_PAIRWISE_TRAINING_RELATION_H
#endif

#include "cpu/pairwise_training/pairs.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Stores may alias what a pointer refers to, so the loops over pairs keep all that they read in variables.

// A difference of queries and keys, which are scaled and shifted already.
template <typename C, typename Columns, typename PixelSize>
ALWAYS_INLINE void subtract_keys(const PairWorkspace<C>& at, const PairBlock& block, int64_t from, int64_t first,
                                 int64_t last, PixelSize pixel_size, Columns columns) {
  const int64_t shift = from - first;
  const int32_t* const neighbours = block.neighbours;
  for (int64_t p = block.first_pixel; p < block.end_pixel; ++p) {
    const int64_t begin = block.begin(p), end = block.begin(p + 1);
    for (int64_t c = first; c < last; c += kLanes<C>) {
      const Vector<C> query = load(at.queries.data() + p * pixel_size + c + shift);
      const Vector<C> floor = load(at.parameters.floor + c);
      const C* const keys = at.keys.data() + c + shift;
      C* const features = at.features.data() + c;
      for (int64_t r = begin; r < end; ++r) {
        store(features + r * columns, maximum(floor, query - load(keys + neighbours[r] * pixel_size)));
      }
    }
  }
}

template <typename C>
void multiply_with_keys(const PairWorkspace<C>& at, const PairBlock& block) {
  const int64_t columns = at.problem.padded_columns(), pixel_size = at.problem.map_columns();
  for (int64_t p = block.first_pixel; p < block.end_pixel; ++p) {
    for (int64_t c = 0; c < at.problem.channels; c += kLanes<C>) {
      const Vector<C> factor = load(at.parameters.scale + c) * load(at.queries.data() + p * pixel_size + c);
      const Vector<C> shift = load(at.parameters.shift + c), floor = load(at.parameters.floor + c);
      for (int64_t r = block.begin(p); r < block.begin(p + 1); ++r) {
        const Vector<C> key = load(at.keys.data() + block.neighbours[r] * pixel_size + c);
        store(at.features.data() + r * columns + c, maximum(floor, factor * key + shift));
      }
    }
  }
}

// The dot products without scale and shift.
template <typename C>
C dot_product(const PairWorkspace<C>& at, int64_t pixel, int64_t neighbour) {
  const int64_t pixel_size = at.problem.map_columns();
  Vector<C> products = {};
  for (int64_t c = 0; c < at.problem.channels; c += kLanes<C>) {
    products += load(at.queries.data() + pixel * pixel_size + c) * load(at.keys.data() + neighbour * pixel_size + c);
  }
  C sum = 0;
  for (int64_t lane = 0; lane < kLanes<C>; ++lane) sum += products[lane];
  return sum;
}

template <typename C>
void take_dot_products(const PairWorkspace<C>& at, const PairBlock& block) {
  const int64_t columns = at.problem.padded_columns();
  const PairParameters<C>& parameters = at.parameters;
  for (int64_t p = block.first_pixel; p < block.end_pixel; ++p) {
    for (int64_t r = block.begin(p); r < block.begin(p + 1); ++r) {
      const C feature = dot_product(at, p, block.neighbours[r]) * parameters.scale[0] + parameters.shift[0];
      at.features.data()[r * columns] = feature < parameters.floor[0] ? parameters.floor[0] : feature;
    }
  }
}

// Writes max(scale * r + shift, floor) of all pairs to the workspace's features.
template <typename C, typename Columns>
ALWAYS_INLINE void relate(const PairWorkspace<C>& at, const PairBlock& block, Columns columns) {
  const PairwiseTraining& problem = at.problem;
  if (problem.is_difference()) return subtract_keys(at, block, 0, 0, columns, columns, columns);
  if (problem.relation == Relation::kHadamard) {
    multiply_with_keys(at, block);
  } else {
    take_dot_products(at, block);
  }
  if (problem.columns() > problem.relation_channels()) {
    subtract_keys(at, block, problem.map_first_position(), problem.first_position(), columns, problem.map_columns(),
                  columns);
  }
}

// Adds gradients, with respect to scale * r, to the sums of their pixels and neighbours.
template <typename C, typename Columns, typename PixelSize>
ALWAYS_INLINE void scatter_differences(const PairWorkspace<C>& at, const PairBlock& block, const C* gradients,
                                       int64_t to, int64_t first, int64_t last, PixelSize pixel_size, Columns columns) {
  const int64_t shift = to - first;
  const int32_t* const neighbours = block.neighbours;
  for (int64_t p = block.first_pixel; p < block.end_pixel; ++p) {
    const int64_t begin = block.begin(p), end = block.begin(p + 1);
    for (int64_t c = first; c < last; c += kLanes<C>) {
      Vector<C> sum = {};
      C* const key_sums = at.key_sums.data() + c + shift;
      for (int64_t r = begin; r < end; ++r) {
        const Vector<C> gradient = load(gradients + r * columns + c);
        C* const key_sum = key_sums + neighbours[r] * pixel_size;
        store(key_sum, load(key_sum) + gradient);
        sum += gradient;
      }
      store(at.query_sums.data() + p * pixel_size + c + shift, sum);
    }
  }
}

// The same for max(floor, scale * r + shift) itself, which need not be kept.
template <typename C, typename Columns>
ALWAYS_INLINE void scatter_features(const PairWorkspace<C>& at, const PairBlock& block, Columns columns) {
  const int32_t* const neighbours = block.neighbours;
  const float* const multiplicities = block.multiplicities;
  const bool has_repeats = block.has_repeats;
  for (int64_t p = block.first_pixel; p < block.end_pixel; ++p) {
    const int64_t begin = block.begin(p), end = block.begin(p + 1);
    for (int64_t c = 0; c < columns; c += kLanes<C>) {
      const Vector<C> query = load(at.queries.data() + p * columns + c);
      const C* const keys = at.keys.data() + c;
      C* const key_sums = at.key_sums.data() + c;
      Vector<C> sum = {};
      for (int64_t r = begin; r < end; ++r) {
        const int64_t neighbour = neighbours[r] * columns;
        Vector<C> gradient = query - load(keys + neighbour);
        if (has_repeats) gradient *= static_cast<C>(multiplicities[r]);
        store(key_sums + neighbour, load(key_sums + neighbour) + gradient);
        sum += gradient;
      }
      store(at.query_sums.data() + p * columns + c, sum);
    }
  }
}

template <typename C>
void scatter_products(const PairWorkspace<C>& at, const PairBlock& block, const C* gradients) {
  const bool is_dot = at.problem.relation == Relation::kDot;
  const int64_t columns = at.problem.padded_columns(), pixel_size = at.problem.map_columns();
  for (int64_t p = block.first_pixel; p < block.end_pixel; ++p) {
    for (int64_t c = 0; c < at.problem.channels; c += kLanes<C>) {
      Vector<C> sum = {};
      const Vector<C> query = load(at.queries.data() + p * pixel_size + c);
      for (int64_t r = block.begin(p); r < block.begin(p + 1); ++r) {
        const C* const from = gradients + r * columns;
        const Vector<C> gradient = is_dot ? broadcast<C>(from[0]) : load(from + c);
        const int64_t at_key = block.neighbours[r] * pixel_size + c;
        store(at.key_sums.data() + at_key, load(at.key_sums.data() + at_key) + gradient * query);
        sum += gradient * load(at.keys.data() + at_key);
      }
      store(at.query_sums.data() + p * pixel_size + c, sum);
    }
  }
  for (int64_t c = 0; c < at.problem.relation_channels(); c += kLanes<C>) {
    Vector<C> sum = load(at.column_sums.data() + c);
    for (int64_t r = 0; r < block.count; ++r) sum += load(gradients + r * columns + c);
    store(at.column_sums.data() + c, sum);
  }
}

template <typename C, typename Columns>
ALWAYS_INLINE void scatter(const PairWorkspace<C>& at, const PairBlock& block, const C* gradients, Columns columns) {
  const PairwiseTraining& problem = at.problem;
  if (problem.is_difference()) {
    return scatter_differences(at, block, gradients, 0, 0, columns, columns, columns);
  }
  scatter_products(at, block, gradients);
  if (problem.columns() > problem.relation_channels()) {
    scatter_differences(at, block, gradients, problem.map_first_position(), problem.first_position(), columns,
                        problem.map_columns(), columns);
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PAIRWISE_TRAINING_RELATION_H
