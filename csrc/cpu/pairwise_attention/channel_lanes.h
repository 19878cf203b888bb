// Pairwise attention with channels in the lanes of vectors. It computes relation, position, mapping, softmax and
// aggregation of a few output pixels at a time. The pairs of a pixel and its neighbours are the rows of small matrices,
// which stay in the cache, and their features the columns: a layer of the mapping is a matrix product.
#if defined(SA_LAYERS_CPU_PAIRWISE_ATTENTION_CHANNEL_LANES_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PAIRWISE_ATTENTION_CHANNEL_LANES_H
#undef SA_LAYERS_CPU_PAIRWISE_ATTENTION_CHANNEL_LANES_H
#else
#define SA_LAYERS_CPU_PAIRWISE_ATTENTION_CHANNEL_LANES_H
#endif

#include "cpu/pairwise_attention/mapping.h"
#include "cpu/pairwise_attention/problem.h"
#include "cpu/pairwise_attention/softmax.h"
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
      // The query's features do not depend on the key: 0 * key would be NaN for an infinite one.
      for_each_channel_vector<T>(channels, [&](int64_t c, auto lanes) ALWAYS_INLINE_LAMBDA {
        const V scale = load(mapping.scale + c, lanes), shift = load(mapping.shift + c, lanes);
        const V feature = relu(scale * load(query + c, lanes) + shift);
        for (int64_t j = 0; j < count; ++j) store(rows + j * row_size + c, feature);
      });
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
// relation. Always writes kMaxPositions columns. Columns past the last feature hold no data yet and may be overwritten.
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

// output[c] = sum over the neighbours of weight[c] * value[c], then the epilogue, for kSteps times kVectors vectors.
// Weights repeat every `step` channels.
template <int kSteps, int kVectors, typename T, typename Lanes>
ALWAYS_INLINE void aggregate(const Neighbour<T>* neighbours, int64_t channel, int64_t step,
                             FootprintSoftmax<Compute<T>, kVectors>& softmax, bool first, bool last,
                             const PackedMapping<Compute<T>>& mapping, T* output, Lanes lanes) {
  Vector<T> sums[kSteps][kVectors] = {};
  softmax.for_each_tap(first, last, [&](int64_t j, const Vector<T>(&weights)[kVectors]) ALWAYS_INLINE_LAMBDA {
    const T* value = neighbours[j].value + channel;
#pragma GCC unroll 8
    for (int s = 0; s < kSteps; ++s) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sums[s][v] += weights[v] * load(value + s * step + v * kLanes<T>, lanes);
    }
  });
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    const Vector<T> normalizer = broadcast<T>(1) / softmax.totals[v];
#pragma GCC unroll 8
    for (int s = 0; s < kSteps; ++s) {
      const int64_t c = channel + s * step + v * kLanes<T>;
      Vector<T> result = sums[s][v] * normalizer;
      if (mapping.output_scale != nullptr) {
        result = relu(result * load(mapping.output_scale + c, lanes) + load(mapping.output_shift + c, lanes));
      }
      store(output + c, result, lanes);
    }
  }
}

// The softmax of a pixel's logits and the aggregation of its values.
template <typename T>
void softmax_and_aggregate(const PairwiseAttention& problem, const PackedMapping<Compute<T>>& mapping,
                           Compute<T>* logits, const Neighbour<T>* neighbours, int64_t count, T* output) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t width = mapping.padded_widths[problem.layers], channels = problem.value_channels;
  // A pixel that several taps read counts once for each of them in the softmax.
  for (int64_t j = 0; j < count && count < problem.footprint.taps(); ++j) {
    if (neighbours[j].log2_taps == 0) continue;
    Compute<T>* const row = logits + j * width;
    for (int64_t i = 0; i < width; i += lanes) store(row + i, load(row + i) + neighbours[j].log2_taps);
  }
  int64_t j = 0;
  const auto columns = [&](auto vectors) ALWAYS_INLINE_LAMBDA {
    constexpr int64_t kColumns = vectors.value * lanes;
    FootprintSoftmax<Compute<T>, vectors.value> weights(logits + j, count, width);
    int64_t c = j;
    const auto block = [&](auto steps) ALWAYS_INLINE_LAMBDA {
      for (; c + (steps.value - 1) * width + kColumns <= channels; c += steps.value * width) {
        aggregate<steps.value, vectors.value>(neighbours, c, width, weights, c == j,
                                              c + steps.value * width >= channels, mapping, output, AllLanes{});
      }
    };
    if constexpr (vectors.value == 1) block(Constant<8>{});
    block(Constant<4>{}), block(Constant<2>{}), block(Constant<1>{});
    if constexpr (vectors.value == 1) {
      if (c < channels) {
        aggregate<1, 1>(neighbours, c, width, weights, c == j, true, mapping, output, SomeLanes{0, channels - c});
      }
    }
    j += kColumns;
  };
  // A cache line at a time, where it holds two vectors.
  if constexpr (sizeof(Vector<T>) == 32) {
    while (channels % width == 0 && j + 2 * lanes <= width) columns(Constant<2>{});
  }
  while (j < min(width, channels)) columns(Constant<1>{});
}

// Computes the output pixels begin <= pixel < end, counted through the batch.
template <typename T>
void pairwise_attention_channel_lanes(const PairwiseAttention& problem, const PackedMapping<Compute<T>>& mapping,
                                      const T* query, const T* key, const T* value, T* output, int64_t begin,
                                      int64_t end) {
  using C = Compute<T>;
  const int64_t taps = problem.footprint.taps(), max_rows = problem.max_block_pairs();
  const int64_t block_rows = round_up(max_rows, kRowBlock);
  const int64_t input_size = round_up(problem.widths[0] + kMaxPositions, kLanes<T>) + kLanes<T>;
  int64_t max_width = input_size;
  for (int64_t layer = 1; layer <= problem.layers; ++layer) max_width = max(max_width, mapping.padded_widths[layer]);
  const Scratch<C> scratch(2 * block_rows * max_width);
  // Rows that hold no pair are computed too.
  for (int64_t i = 0; i < 2 * block_rows * max_width; ++i) scratch.data()[i] = 0;
  const Scratch<Neighbour<T>> neighbours(max_rows);
  const Scratch<int64_t> starts(max_rows + 1);  // of each pixel's rows
  const int64_t zeros_count = max(problem.channels, problem.value_channels) + kLanes<T>;
  const Scratch<T> zeros(zeros_count);
  for (int64_t i = 0; i < zeros_count; ++i) zeros.data()[i] = T{};

  for (int64_t first = begin; first < end;) {
    C *rows = scratch.data(), *other = rows + block_rows * max_width;
    int64_t pixels = 0, count = 0;
    for (; first + pixels < end && count + taps <= max_rows; ++pixels) {
      const PixelIndex index = problem.index_of(first + pixels);
      Neighbour<T>* const pixel_neighbours = neighbours.data() + count;
      C* const pixel_rows = rows + count * input_size;
      const int64_t found =
          find_neighbours(problem, index, key + index.image * problem.key_strides.image,
                          value + index.image * problem.value_strides.image, zeros.data(), pixel_neighbours);
      compute_relation(problem, mapping, query + problem.query_strides.offset_of(index, problem.footprint),
                       pixel_neighbours, found, pixel_rows, input_size);
      if (problem.positions > 0) {
        compute_position_features(problem, mapping, index, pixel_neighbours, found,
                                  pixel_rows + problem.relation_channels(), input_size);
      }
      starts.data()[pixels] = count, count += found;
    }
    starts.data()[pixels] = count;
    const int64_t row_count = round_up(count, kRowBlock);
    int64_t row_size = input_size;
    for (int64_t layer = 0; layer < problem.layers; ++layer) {
      const int64_t width = mapping.padded_widths[layer + 1];
      const auto call = [&](auto relu_after) {
        multiply<relu_after.value>(rows, row_size, row_count, problem.widths[layer], mapping.weights[layer], width,
                                   mapping.biases[layer], other);
      };
      if (layer + 1 < problem.layers) {
        call(Constant<true>{});
      } else {
        call(Constant<false>{});
      }
      C* const swap = rows;
      rows = other, other = swap, row_size = width;
    }
    for (int64_t p = 0; p < pixels; ++p) {
      const int64_t start = starts.data()[p], found = starts.data()[p + 1] - start;
      softmax_and_aggregate(problem, mapping, rows + start * row_size, neighbours.data() + start, found,
                            output + (first + p) * problem.value_channels);
    }
    first += pixels;
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PAIRWISE_ATTENTION_CHANNEL_LANES_H
