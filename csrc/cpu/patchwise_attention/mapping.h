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
// the rows `row`, `row` + `step`, ... The norm of the hidden layer is multiplied in.
inline void pack_features(const PatchwiseAttention& problem, const MappingParameters& from, int64_t feature,
                          int64_t count, int64_t row, int64_t step, const PatchwiseMapping& to) {
  const int64_t weights = problem.weight_channels, features = problem.features(), period = problem.hidden_period();
  const float *weight = from.hidden_weight + feature, *scale = from.hidden_scale;
  for (int64_t i = 0; i < count; ++i) {
    to.scale[row + i * step] = from.scale[feature + i], to.shift[row + i * step] = from.shift[feature + i];
  }
#if SA_LAYERS_TARGET != SA_LAYERS_BASELINE
  if (weights >= kLanes<float>) {
    float* const packed = to.hidden_weight + row * to.hidden_stride;
    const int64_t stride = step * to.hidden_stride;
    for_each_plane(weight, features, weights, count,
                   [=](int64_t i, int64_t n, Vector<float> vector)
                       ALWAYS_INLINE_LAMBDA { store(packed + i * stride + n, vector * load(scale + n)); });
    return;
  }
#endif
  for (int64_t i = 0; i < count; ++i, row += step) {
    float* const packed = to.hidden_weight + row / period * to.hidden_stride + row % period;
    for (int64_t n = 0; n < weights; ++n) packed[n * period] = weight[n * features + i] * scale[n];
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
      pack_features(problem, from, 0, problem.is_product() ? problem.features() : channels, 0, 1, to);
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
