// Pairwise attention with pixels in the lanes of vectors, for few channels, which would leave lanes empty. A task goes
// down the rows of an image. The rows that its footprints read are in a ring of planes, with the border filled in, so
// that a tap is an offset. The features of a pair stay in the first-level cache from the relation to the logits.
#if defined(SA_LAYERS_CPU_PAIRWISE_ATTENTION_PIXEL_LANES_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PAIRWISE_ATTENTION_PIXEL_LANES_H
#undef SA_LAYERS_CPU_PAIRWISE_ATTENTION_PIXEL_LANES_H
#else
#define SA_LAYERS_CPU_PAIRWISE_ATTENTION_PIXEL_LANES_H
#endif

#include "cpu/pairwise_attention/mapping.h"
#include "cpu/pairwise_attention/row_planes.h"
#include "cpu/pairwise_attention/softmax.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// The features of the pairs of a few taps, [tap][feature][lane].
template <int kTaps, typename T>
void compute_relation_lanes(const PairwiseAttention& problem, const Compute<T>* const* keys, int64_t plane,
                            const Compute<T>* centres, const Compute<T>* summands, Compute<T>* features) {
  using V = Vector<T>;
  const int64_t channels = problem.channels, tap_stride = problem.widths[0] * kLanes<T>;
  // Features begin <= d < end: relu(key + summand), after body(d - begin, key) has changed the key.
  const auto fill = [&](int64_t begin, int64_t end, int64_t first_key, const auto& body) ALWAYS_INLINE_LAMBDA {
    for (int64_t d = begin; d < end; ++d) {
      const V summand = load(summands + d * plane);
#pragma GCC unroll 3
      for (int t = 0; t < kTaps; ++t) {
        V key = load(keys[t] + (first_key + d - begin) * plane);
        body(d - begin, key);
        store(features + t * tap_stride + d * kLanes<T>, relu(key + summand));
      }
    }
  };
  const auto identity = [](int64_t, V&) ALWAYS_INLINE_LAMBDA {};
  switch (problem.relation) {
    case Relation::kSubtraction:
    case Relation::kSummation:
      return fill(0, problem.widths[0], 0, identity);
    case Relation::kHadamard:
      fill(0, channels, 0, [&](int64_t c, V& key) ALWAYS_INLINE_LAMBDA { key *= load(centres + c * plane); });
      break;
    case Relation::kDot:
      for (int t = 0; t < kTaps; ++t) {
        V product = load(summands);
        for (int64_t c = 0; c < channels; ++c) product += load(centres + c * plane) * load(keys[t] + c * plane);
        store(features + t * tap_stride, relu(product));
      }
      break;
    case Relation::kConcatenation:
      for (int t = 0; t < kTaps; ++t) {
        for (int64_t c = 0; c < channels; ++c) {
          store(features + t * tap_stride + c * kLanes<T>, load(centres + c * plane));
        }
      }
      fill(channels, 2 * channels, 0, identity);
  }
  fill(problem.relation_channels(), problem.widths[0], channels, identity);
}

// Taps that go through the mapping together share the loads of the weights, and fill the registers with a block of
// outputs.
constexpr int kTapBlock = 3, kOutputBlock = kVectorBlock >= 4 ? 8 : 4;

template <int kTaps, int kOutputs, bool kRelu, typename C>
ALWAYS_INLINE void linear_layer_lanes_block(const C* features, int64_t depth, const C* weight, int64_t width,
                                            const C* bias, C* output, int64_t outputs) {
  Vector<C> sums[kTaps][kOutputs];
#pragma GCC unroll 8
  for (int n = 0; n < kOutputs; ++n) {
#pragma GCC unroll 3
    for (int t = 0; t < kTaps; ++t) sums[t][n] = broadcast<C>(bias[n]);
  }
  for (int64_t i = 0; i < depth; ++i) {
    Vector<C> inputs[kTaps];
#pragma GCC unroll 3
    for (int t = 0; t < kTaps; ++t) inputs[t] = load(features + (t * depth + i) * kLanes<C>);
#pragma GCC unroll 8
    for (int n = 0; n < kOutputs; ++n) {
      Vector<C> coefficient = broadcast<C>(weight[i * width + n]);
      if constexpr (kTaps > 1) keep_in_register(coefficient);
#pragma GCC unroll 3
      for (int t = 0; t < kTaps; ++t) sums[t][n] += coefficient * inputs[t];
    }
  }
#pragma GCC unroll 3
  for (int t = 0; t < kTaps; ++t) {
#pragma GCC unroll 8
    for (int n = 0; n < kOutputs; ++n) {
      store(output + (t * outputs + n) * kLanes<C>, kRelu ? relu(sums[t][n]) : sums[t][n]);
    }
  }
}

// A linear layer of the mapping, from [tap][feature][lane] to [tap][output][lane].
template <int kTaps, bool kRelu, typename C>
void linear_layer_lanes(const C* features, int64_t depth, const C* weight, int64_t width, const C* bias,
                        int64_t outputs, C* output) {
  int64_t n = 0;
  const auto block = [&](auto count) ALWAYS_INLINE_LAMBDA {
    for (; n + count.value <= outputs; n += count.value) {
      linear_layer_lanes_block<kTaps, count.value, kRelu>(features, depth, weight + n, width, bias + n,
                                                          output + n * kLanes<C>, outputs);
    }
  };
  if constexpr (kOutputBlock > 4) block(Constant<kOutputBlock>{});
  block(Constant<4>{}), block(Constant<2>{}), block(Constant<1>{});
}

// Adds log2 of the number of tap rows that read a tap's row of the map to its logits, [tap][weight channel][lane].
template <typename C>
void add_to_logits(const C* log2_taps, int64_t taps, int64_t weight_channels, C* logits) {
  for (int64_t tap = 0; tap < taps; ++tap) {
    if (log2_taps[tap] == 0) continue;
    C* const row = logits + tap * weight_channels * kLanes<C>;
    for (int64_t i = 0; i < weight_channels * kLanes<C>; i += kLanes<C>) store(row + i, load(row + i) + log2_taps[tap]);
  }
}

// Softmax of the logits, [tap][weight channel][lane], and aggregation of the values.
template <typename T>
void softmax_and_aggregate_lanes(const PairwiseAttention& problem, const PackedMapping<Compute<T>>& mapping,
                                 Compute<T>* logits, const Compute<T>* const* values, int64_t taps, int64_t row_width,
                                 Compute<T>* output) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t weight_channels = problem.weight_channels();
  for (int64_t g = 0; g < weight_channels; ++g) {
    FootprintSoftmax<Compute<T>> weights(logits + g * lanes, taps, weight_channels * lanes);
    int64_t c = g;
    const auto block = [&](auto count) ALWAYS_INLINE_LAMBDA {
      for (; c + (count.value - 1) * weight_channels < problem.value_channels; c += count.value * weight_channels) {
        Vector<T> sums[count.value] = {};
        const bool last = c + count.value * weight_channels >= problem.value_channels;
        weights.for_each_tap(c == g, last, [&](int64_t tap, const Vector<T>(&weight)[1]) ALWAYS_INLINE_LAMBDA {
          const Compute<T>* value = values[tap] + c * row_width;
#pragma GCC unroll 8
          for (int s = 0; s < count.value; ++s) sums[s] += weight[0] * load(value + s * weight_channels * row_width);
        });
        const Vector<T> normalizer = broadcast<T>(1) / weights.totals[0];
        for (int s = 0; s < count.value; ++s) {
          const int64_t channel = c + s * weight_channels;
          Vector<T> result = sums[s] * normalizer;
          if (mapping.output_scale != nullptr) {
            result = relu(result * mapping.output_scale[channel] + mapping.output_shift[channel]);
          }
          store(output + channel * lanes, result);
        }
      }
    };
    block(Constant<8>{}), block(Constant<4>{}), block(Constant<2>{}), block(Constant<1>{});
  }
}

// Computes the output rows begin <= row < end, counted through the batch.
template <typename T>
void pairwise_attention_pixel_lanes(const PairwiseAttention& problem, const PackedMapping<Compute<T>>& mapping,
                                    const T* query, const T* key, const T* value, T* output, int64_t begin,
                                    int64_t end) {
  using C = Compute<T>;
  const Footprint& footprint = problem.footprint;
  const int64_t lanes = kLanes<T>, all_taps = footprint.taps(), width = footprint.columns.output_size();
  const int64_t height = footprint.rows.output_size();
  const RowPlanes<T> planes(problem);
  int64_t max_width = problem.widths[0];
  for (int64_t layer = 1; layer < problem.layers; ++layer) max_width = max(max_width, problem.widths[layer]);
  const Scratch<C> first(kTapBlock * max_width * lanes), second(kTapBlock * max_width * lanes);
  const Scratch<C> logits(all_taps * problem.weight_channels() * lanes), sums(problem.value_channels * lanes);
  const Scratch<const C*> keys(all_taps), values(all_taps);
  const Scratch<C> log2_taps(all_taps);
  int64_t filled_image = -1, filled = 0;

  for (int64_t task = begin; task < end; ++task) {
    const int64_t image = task / height, row = task % height, top = footprint.rows.padded(row, 0);
    filled = filled_image == image ? max(filled, top) : top, filled_image = image;
    for (; filled <= top + footprint.rows.reach(); ++filled) {
      planes.fill(filled, mapping, key + image * problem.key_strides.image,
                  value + image * problem.value_strides.image);
    }
    const int64_t centre_row = row * footprint.rows.stride;
    planes.centre(centre_row, mapping,
                  query + image * problem.query_strides.image + centre_row * problem.query_strides.row);
    for (int64_t column = 0; column < width; column += lanes) {
      const C *const centres = planes.centres.data() + column, *const summands = planes.summands.data() + column;
      int64_t taps = 0;
      planes.prefetch_written(min(lanes, width - column), output + (task * width + column) * problem.value_channels);
      for (const DistinctPixel* y = problem.rows_read.begin(row); y != problem.rows_read.end(row); ++y) {
        const C* const from = planes.row(footprint.rows.padded(row, y->first_tap)) + column;
        for (int64_t j = 0; j < footprint.columns.kernel; ++j, ++taps) {
          keys.data()[taps] = from + footprint.columns.padded(0, j);
          values.data()[taps] = keys.data()[taps] + planes.first_value * planes.plane;
          log2_taps.data()[taps] = static_cast<C>(y->log2_taps);
        }
      }
      int64_t tap = 0;
      const auto map = [&](auto count) ALWAYS_INLINE_LAMBDA {
        for (; tap + count.value <= taps; tap += count.value) {
          C *features = first.data(), *other = second.data();
          compute_relation_lanes<count.value, T>(problem, keys.data() + tap, planes.plane, centres, summands, features);
          const int64_t last = problem.layers - 1;
          for (int64_t layer = 0; layer < last; ++layer) {
            linear_layer_lanes<count.value, true>(features, problem.widths[layer], mapping.weights[layer],
                                                  mapping.padded_widths[layer + 1], mapping.biases[layer],
                                                  problem.widths[layer + 1], other);
            C* const swap = features;
            features = other, other = swap;
          }
          linear_layer_lanes<count.value, false>(
              features, problem.widths[last], mapping.weights[last], mapping.padded_widths[last + 1],
              mapping.biases[last], problem.weight_channels(), logits.data() + tap * problem.weight_channels() * lanes);
        }
      };
      map(Constant<kTapBlock>{}), map(Constant<1>{});
      add_to_logits<C>(log2_taps.data(), taps, problem.weight_channels(), logits.data());
      softmax_and_aggregate_lanes<T>(problem, mapping, logits.data(), values.data(), taps, planes.plane, sums.data());
      planes.write(sums.data(), min(lanes, width - column), output + (task * width + column) * problem.value_channels);
    }
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PAIRWISE_ATTENTION_PIXEL_LANES_H
