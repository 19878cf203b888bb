// Packs the parameters of the mapping: from the order of modules to the order in which the kernels read them.
#if defined(SA_LAYERS_CPU_PATCHWISE_ATTENTION_MAPPING_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PATCHWISE_ATTENTION_MAPPING_H
#undef SA_LAYERS_CPU_PATCHWISE_ATTENTION_MAPPING_H
#else
#define SA_LAYERS_CPU_PATCHWISE_ATTENTION_MAPPING_H
#endif

#include <algorithm>

#include "cpu/patchwise_attention/problem.h"
#include "cpu/simd/transpose.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

// Some of the weight channels.
struct Columns {
  int64_t begin, count;
};

// The weights of one tap: a row for each hidden channel, a column for each weight channel.
inline void pack_tap(const PatchwiseAttention& problem, const MappingParameters& from, int64_t tap,
                     const Columns& columns, const PatchwiseMapping& to) {
  const int64_t weights = problem.weight_channels, taps = problem.footprint.taps();
  const int64_t column = tap * problem.tap_stride() + columns.begin;
  to_planes(from.weight + (columns.begin * taps + tap) * weights, taps * weights, columns.count, weights,
            to.weight + column, to.weight_stride);
  for (int64_t n = 0; n < columns.count; ++n) to.bias[column + n] = from.bias[(columns.begin + n) * taps + tap];
}

// The rows of the hidden matrix for some features, which follow each other in the module from `feature` on. Feature i
// is the channel channel + i of the tap, or the channel of the tap tap + i. The norm of the hidden layer is multiplied
// in.
template <bool kTapsFollow>
void pack_features(const PatchwiseAttention& problem, const MappingParameters& from, int64_t feature, int64_t count,
                   int64_t tap, int64_t channel, const Columns& columns, const PatchwiseMapping& to) {
  const int64_t features = problem.features(), period = problem.hidden_period(), stride = to.hidden_stride;
  const float *weight = from.hidden_weight + columns.begin * features + feature,
              *scale = from.hidden_scale + columns.begin;
  float* const matrix = to.hidden_weight + columns.begin * period;
  const int64_t* const offsets = to.hidden_offsets + tap;
#if SA_LAYERS_TARGET != SA_LAYERS_BASELINE
  if (period > 1 && columns.count == kLanes<float>) {  // one vector of weights: a row holds every second column
    for_each_plane(weight, features, columns.count, count,
                   [=](int64_t i, int64_t, Vector<float> vector) ALWAYS_INLINE_LAMBDA {
                     const int64_t own_channel = kTapsFollow ? channel : channel + i;
                     float* const row =
                         matrix + offsets[kTapsFollow ? i : 0] + own_channel / period * stride + own_channel % period;
                     const Vector<float> scaled = vector * load(scale);
                     for (int64_t n = 0; n < kLanes<float>; ++n) row[n * period] = scaled[n];
                   });
    return;
  }
  if (period == 1 && columns.count >= kLanes<float>) {
    for_each_plane(weight, features, columns.count, count,
                   [=](int64_t i, int64_t n, Vector<float> vector) ALWAYS_INLINE_LAMBDA {
                     float* const row =
                         matrix + (kTapsFollow ? offsets[i] + channel * stride : offsets[0] + (channel + i) * stride);
                     store(row + n, vector * load(scale + n));
                   });
    return;
  }
#endif
  for (int64_t i = 0; i < count; ++i) {
    const int64_t own_channel = kTapsFollow ? channel : channel + i;
    float* const row = matrix + offsets[kTapsFollow ? i : 0] + own_channel / period * stride + own_channel % period;
    for (int64_t n = 0; n < columns.count; ++n) row[n * period] = weight[n * features + i] * scale[n];
  }
}

// The norm of the features, in the order of the hidden matrix: the taps of a channel follow each other in the module,
// the channels of a tap here.
inline void pack_norm(const PatchwiseAttention& problem, const float* from, float* to) {
  const int64_t query = problem.is_product() ? problem.features() : problem.relation_channels;
  const int64_t taps = problem.footprint.taps();
  std::copy_n(from, query, to);
  if (!problem.is_product()) to_planes(from + query, taps, query, taps, to + query, query);
}

// Packs a part of the parameters: the norms and the features of the query, or all products; then some taps, of few
// weight channels each; then some channels of the key likewise. The module holds the taps, and the channels, of a
// weight channel one after the other, and the hardware prefetcher follows as many rows as a group has.
template <typename T>
void pack_mapping(const PatchwiseAttention& problem, const MappingParameters& from, const PatchwiseMapping& to,
                  int64_t begin, int64_t end) {
  const int64_t channels = problem.relation_channels, taps = problem.footprint.taps();
  const int64_t groups = problem.packing_groups(), of_taps = problem.packing_tasks_of_taps();
  const Columns all{0, problem.weight_channels};
  const auto columns_of = [&](int64_t task) {
    const int64_t group = task % groups, first = group * kGroupColumns;
    return Columns{first, group + 1 < groups ? kGroupColumns : all.count - first};
  };
  for (int64_t task = begin; task < end; ++task) {
    if (task == 0) {
      pack_norm(problem, from.scale, to.scale), pack_norm(problem, from.shift, to.shift);
      if (problem.is_product()) {
        pack_features<true>(problem, from, 0, problem.features(), 0, 0, all, to);
      } else {
        pack_features<false>(problem, from, 0, channels, 0, 0, all, to);
      }
      for (int64_t n = 0; n < problem.weight_channels; ++n) {
        to.hidden_bias[n * problem.hidden_period()] = from.hidden_bias[n] * from.hidden_scale[n] + from.hidden_shift[n];
      }
    } else if (task <= of_taps) {
      const int64_t first = (task - 1) / groups * kPackedTaps, last = min(first + kPackedTaps, taps);
      for (int64_t tap = first; tap < last; ++tap) pack_tap(problem, from, tap, columns_of(task - 1), to);
    } else {
      const int64_t rest = task - 1 - of_taps, first = rest / groups * kPackedChannels;
      for (int64_t channel = first; channel < min(first + kPackedChannels, channels); ++channel) {
        pack_features<true>(problem, from, channels + channel * taps, taps, 1, channel, columns_of(rest), to);
      }
    }
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PATCHWISE_ATTENTION_MAPPING_H
