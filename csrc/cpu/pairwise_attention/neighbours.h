// The pairs of an output pixel and the pixels that its taps read: the addresses of the neighbours, and the features of
// the pairs, one row a pair.
#if defined(SA_LAYERS_CPU_PAIRWISE_ATTENTION_NEIGHBOURS_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PAIRWISE_ATTENTION_NEIGHBOURS_H
#undef SA_LAYERS_CPU_PAIRWISE_ATTENTION_NEIGHBOURS_H
#else
#define SA_LAYERS_CPU_PAIRWISE_ATTENTION_NEIGHBOURS_H
#endif

#include "cpu/pairwise_attention/problem.h"
#include "cpu/simd/vector.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Calls body(channel, lanes) for the vectors of some channels.
template <typename T, typename Body>
ALWAYS_INLINE void for_each_channel_vector(int64_t channels, const Body& body) {
  int64_t c = 0;
  for (; c + kLanes<T> <= channels; c += kLanes<T>) body(c, AllLanes{});
  if (c < channels) body(c, SomeLanes{0, channels - c});
}

// A pixel that one or more taps of an output pixel read.
template <typename T>
struct Neighbour {
  const T *key, *value;
  int32_t row, column;   // -1 for padded zeros
  Compute<T> log2_taps;  // of the number of taps that read it
};

// The relation of all pairs of a pixel, after the first norm's scale, shift and ReLU.
template <typename T>
void compute_relation(const PairwiseAttention& problem, const PackedMapping<Compute<T>>& mapping, const T* query,
                      const Neighbour<T>* neighbours, int64_t count, Compute<T>* rows, int64_t row_size) {
  using V = Vector<T>;
  const int64_t channels = problem.channels;
  // Before the ReLU a feature is factor * key + summand; both come from the centre.
  const auto fill = [&](int64_t offset, const auto& factor_and_summand) ALWAYS_INLINE_LAMBDA {
    for_each_channel_vector<T>(channels, [&](int64_t c, auto lanes) ALWAYS_INLINE_LAMBDA {
      V factor = load(mapping.scale + offset + c, lanes), summand = load(mapping.shift + offset + c, lanes);
      factor_and_summand(load(query + c, lanes), factor, summand);
      for (int64_t j = 0; j < count; ++j) {
        store(rows + j * row_size + offset + c, relu(factor * load(neighbours[j].key + c, lanes) + summand));
      }
    });
  };
  switch (problem.relation) {
    case Relation::kSubtraction:
      return fill(0, [](V centre, V& factor, V& summand)
                         ALWAYS_INLINE_LAMBDA { summand += factor * centre, factor = -factor; });
    case Relation::kSummation:
      return fill(0, [](V centre, V& factor, V& summand) ALWAYS_INLINE_LAMBDA { summand += factor * centre; });
    case Relation::kHadamard:
      return fill(0, [](V centre, V& factor, V&) ALWAYS_INLINE_LAMBDA { factor *= centre; });
    case Relation::kConcatenation:
      fill(0, [](V centre, V& factor, V& summand) ALWAYS_INLINE_LAMBDA { summand += factor * centre, factor = V{}; });
      return fill(channels, [](V, V&, V&) ALWAYS_INLINE_LAMBDA {});
    case Relation::kDot:
      for (int64_t j = 0; j < count; ++j) {
        V products = {};
        for_each_channel_vector<T>(channels, [&](int64_t c, auto lanes) ALWAYS_INLINE_LAMBDA {
          products += load(query + c, lanes) * load(neighbours[j].key + c, lanes);
        });
        Compute<T> sum = 0;
        for (int64_t lane = 0; lane < kLanes<T>; ++lane) sum += products[lane];
        sum = sum * mapping.scale[0] + mapping.shift[0];
        rows[j * row_size] = sum < 0 ? 0 : sum;
      }
  }
}

// Lists the pixels that the taps of an output pixel read, each once, and returns their number. `key` and `value` are
// the image's.
template <typename T>
int64_t find_neighbours(const PairwiseAttention& problem, const PixelIndex& index, const T* key, const T* value,
                        const T* zeros, Neighbour<T>* neighbours) {
  const Neighbour<T>* const first = neighbours;
  int64_t taps_beyond = problem.footprint.taps();
  const DistinctPixel* const columns_end = problem.columns_read.end(index.column);
  for (const DistinctPixel* y = problem.rows_read.begin(index.row); y != problem.rows_read.end(index.row); ++y) {
    if (y->pixel < 0) continue;
    const T* const key_row = key + y->pixel * problem.key_strides.row;
    const T* const value_row = value + y->pixel * problem.value_strides.row;
    for (const DistinctPixel* x = problem.columns_read.begin(index.column); x != columns_end; ++x) {
      if (x->pixel < 0) continue;
      taps_beyond -= y->taps * x->taps;
      *neighbours++ = {key_row + x->pixel * problem.key_strides.pixel,
                       value_row + x->pixel * problem.value_strides.pixel, y->pixel, x->pixel,
                       static_cast<Compute<T>>(y->log2_taps + x->log2_taps)};
    }
  }
  if (taps_beyond > 0) {
    const double taps = static_cast<double>(taps_beyond);
    *neighbours++ = {zeros, zeros, -1, -1, static_cast<Compute<T>>(__builtin_log2(taps))};
  }
  return neighbours - first;
}

// The position features of all pairs of a pixel, after scale, shift and ReLU, in the columns after those of the
// relation. Always writes kMaxPositions columns; those past the features are not in use yet.
template <typename T, typename C>
void compute_position_features(const PairwiseAttention& problem, const PackedMapping<C>& mapping,
                               const PixelIndex& index, const Neighbour<T>* neighbours, int64_t count, C* rows,
                               int64_t row_size) {
  typedef C Features __attribute__((vector_size(kMaxPositions * sizeof(C))));
  const auto add = [](Features& features, const C* table, int64_t index) ALWAYS_INLINE_LAMBDA {
    Features row;
    __builtin_memcpy(&row, table + index * kMaxPositions, sizeof(row));
    features += row;
  };
  Features centre = {};
  add(centre, mapping.query_rows, index.row * problem.footprint.rows.stride);
  add(centre, mapping.query_columns, index.column * problem.footprint.columns.stride);
  for (int64_t j = 0; j < count; ++j, rows += row_size) {
    Features features = centre;
    if (neighbours[j].row >= 0) {
      add(features, mapping.key_rows, neighbours[j].row);
      add(features, mapping.key_columns, neighbours[j].column);
    }
    features = features < 0 ? Features{} : features;
    __builtin_memcpy(rows, &features, sizeof(features));
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PAIRWISE_ATTENTION_NEIGHBOURS_H
