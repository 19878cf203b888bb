// Packs the parameters of the mapping: from the order of modules to the order in which the kernels read them.
#if defined(SA_LAYERS_CPU_PATCHWISE_ATTENTION_MAPPING_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_PATCHWISE_ATTENTION_MAPPING_H
#undef SA_LAYERS_CPU_PATCHWISE_ATTENTION_MAPPING_H
#else
#define SA_LAYERS_CPU_PATCHWISE_ATTENTION_MAPPING_H
#endif

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

// The rows of the hidden matrix that follow each other in the module: `count` features from `feature` on, which become
// the rows `row`, `row` + `step`, ...
inline void pack_features(const PatchwiseAttention& problem, const MappingParameters& from, int64_t feature,
                          int64_t count, int64_t row, int64_t step, const PatchwiseMapping& to) {
  const int64_t weights = problem.weight_channels, features = problem.feature_taps() * problem.feature_channels();
  const int64_t period = problem.hidden_period(), stride = to.hidden_stride;
  const float* weight = from.hidden_weight + feature;
  if (period == 1) {
    to_planes(weight, features, weights, count, to.hidden_weight + row * stride, step * stride);
  }
  for (int64_t i = 0; i < count; ++i, row += step) {
    to.scale[row] = from.scale[feature + i], to.shift[row] = from.shift[feature + i];
    float* const packed = to.hidden_weight + row / period * stride + row % period;
    if (period == 1) {
      for (int64_t n = 0; n < weights; ++n) packed[n] *= from.hidden_scale[n];
    } else {
      for (int64_t n = 0; n < weights; ++n) packed[n * period] = weight[n * features + i] * from.hidden_scale[n];
    }
  }
}

// Packs a part of the parameters: task 0 the features of the query, or all products; then the weights of each tap; then
// the taps of each channel of the key.
template <typename T>
void pack_mapping(const PatchwiseAttention& problem, const MappingParameters& from, const PatchwiseMapping& to,
                  int64_t begin, int64_t end) {
  const int64_t channels = problem.relation_channels, taps = problem.footprint.taps();
  for (int64_t task = begin; task < end; ++task) {
    if (task == 0) {
      const int64_t first = problem.is_product() ? problem.feature_taps() : channels;
      pack_features(problem, from, 0, first, 0, 1, to);
      for (int64_t n = 0; n < problem.weight_channels; ++n) {
        to.hidden_bias[n * problem.hidden_period()] = from.hidden_bias[n] * from.hidden_scale[n] + from.hidden_shift[n];
      }
    } else if (task <= taps) {
      pack_tap(problem, from, task - 1, to);
    } else {
      const int64_t channel = task - 1 - taps;
      pack_features(problem, from, channels + channel * taps, taps, channels + channel, channels, to);
    }
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PATCHWISE_ATTENTION_MAPPING_H
