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

// The weights of one tap: a row for each hidden channel, a column for each weight channel.
inline void pack_tap(const PatchwiseAttention& problem, const MappingParameters& from, int64_t tap,
                     const PatchwiseMapping& to) {
  const int64_t weights = problem.weight_channels, taps = problem.footprint.taps(), column = tap * problem.tap_stride();
  to_planes(from.weight + tap * weights, taps * weights, weights, weights, to.weight + column, to.weight_stride);
  for (int64_t n = 0; n < weights; ++n) to.bias[column + n] = from.bias[n * taps + tap];
}

// The rows of the hidden matrix for some features, which follow each other in the module from `feature` on. Feature i
// is the channel channel + i of the tap, or the channel of the tap tap + i. The norm of the hidden layer is multiplied
// in.
template <bool kTapsFollow>
void pack_features(const PatchwiseAttention& problem, const MappingParameters& from, int64_t feature, int64_t count,
                   int64_t tap, int64_t channel, const PatchwiseMapping& to) {
  const int64_t weights = problem.weight_channels, features = problem.features(), period = problem.hidden_period();
  const int64_t stride = to.hidden_stride;
  const float *weight = from.hidden_weight + feature, *scale = from.hidden_scale;
  float* const matrix = to.hidden_weight;
  const int64_t* const offsets = to.hidden_offsets + tap;
#if SA_LAYERS_TARGET != SA_LAYERS_BASELINE
  if (period > 1 && weights == kLanes<float>) {  // one vector of weights, of which a row holds every second column
    for_each_plane(weight, features, weights, count,
                   [=](int64_t i, int64_t, Vector<float> vector) ALWAYS_INLINE_LAMBDA {
                     const int64_t own_channel = kTapsFollow ? channel : channel + i;
                     float* const row =
                         matrix + offsets[kTapsFollow ? i : 0] + own_channel / period * stride + own_channel % period;
                     const Vector<float> scaled = vector * load(scale);
                     for (int64_t n = 0; n < kLanes<float>; ++n) row[n * period] = scaled[n];
                   });
    return;
  }
  if (period == 1 && weights >= kLanes<float>) {
    for_each_plane(weight, features, weights, count,
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
    for (int64_t n = 0; n < weights; ++n) row[n * period] = weight[n * features + i] * scale[n];
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

// Packs a part of the parameters: task 0 the norms and the features of the query, or all products; then the weights of
// each tap; then the taps of each channel of the key.
template <typename T>
void pack_mapping(const PatchwiseAttention& problem, const MappingParameters& from, const PatchwiseMapping& to,
                  int64_t begin, int64_t end) {
  const int64_t channels = problem.relation_channels, taps = problem.footprint.taps();
  for (int64_t task = begin; task < end; ++task) {
    if (task > taps) {
      const int64_t channel = task - 1 - taps;
      pack_features<true>(problem, from, channels + channel * taps, taps, 1, channel, to);
    } else if (task > 0) {
      pack_tap(problem, from, task - 1, to);
    } else {
      pack_norm(problem, from.scale, to.scale), pack_norm(problem, from.shift, to.shift);
      if (problem.is_product()) {
        pack_features<true>(problem, from, 0, problem.features(), 0, 0, to);
      } else {
        pack_features<false>(problem, from, 0, channels, 0, 0, to);
      }
      for (int64_t n = 0; n < problem.weight_channels; ++n) {
        to.hidden_bias[n * problem.hidden_period()] = from.hidden_bias[n] * from.hidden_scale[n] + from.hidden_shift[n];
      }
    }
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PATCHWISE_ATTENTION_MAPPING_H
