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

// A row of the hidden matrix from its transposed weights, with the norm of its outputs.
inline void pack_row(const PatchwiseAttention& problem, const MappingParameters& from, const float* weights,
                     int64_t feature, int64_t row, const PatchwiseMapping& to) {
  const int64_t period = problem.hidden_period();
  to.scale[row] = from.scale[feature], to.shift[row] = from.shift[feature];
  float* const packed = to.hidden_weight + row / period * to.hidden_stride + row % period;
  if (period == 1) {
    for (int64_t n = 0; n < problem.weight_channels; ++n) packed[n] = weights[n] * from.hidden_scale[n];
  } else {
    for (int64_t n = 0; n < problem.weight_channels; ++n) packed[n * period] = weights[n] * from.hidden_scale[n];
  }
}

// The features of the query, or all products, which are in the same order in the module.
inline void pack_in_order(const PatchwiseAttention& problem, const MappingParameters& from,
                          const PatchwiseMapping& to) {
  const int64_t weights = problem.weight_channels, features = problem.features();
  const int64_t count = problem.is_product() ? features : problem.relation_channels;
  const Scratch<float> rows(kPackedFeatures * weights);
  for (int64_t first = 0; first < count; first += kPackedFeatures) {
    const int64_t some = min(kPackedFeatures, count - first);
    to_planes(from.hidden_weight + first, features, weights, some, rows.data(), weights);
    for (int64_t i = 0; i < some; ++i) {
      pack_row(problem, from, rows.data() + i * weights, first + i, first + i, to);
    }
  }
  for (int64_t n = 0; n < weights; ++n) {
    to.hidden_bias[n * problem.hidden_period()] = from.hidden_bias[n] * from.hidden_scale[n] + from.hidden_shift[n];
  }
}

// All taps of some channels of the key. The taps of a channel follow each other in the module, the channels of a tap in
// the packed matrix, whose rows of one channel are so far apart that they compete for the cache: they are written in
// the order of the packed matrix.
inline void pack_channels(const PatchwiseAttention& problem, const MappingParameters& from, int64_t first,
                          int64_t count, const PatchwiseMapping& to) {
  const int64_t channels = problem.relation_channels, weights = problem.weight_channels;
  const int64_t taps = problem.footprint.taps();
  const Scratch<float> rows(count * taps * weights);
  for (int64_t i = 0; i < count; ++i) {
    to_planes(from.hidden_weight + channels + (first + i) * taps, problem.features(), weights, taps,
              rows.data() + i * taps * weights, weights);
  }
  for (int64_t tap = 0; tap < taps; ++tap) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t feature = channels + (first + i) * taps + tap, row = (1 + tap) * channels + first + i;
      pack_row(problem, from, rows.data() + (i * taps + tap) * weights, feature, row, to);
    }
  }
}

// Packs a part of the parameters: task 0 the features of the query, or all products; then the weights of each tap; then
// the taps of a few channels of the key each.
template <typename T>
void pack_mapping(const PatchwiseAttention& problem, const MappingParameters& from, const PatchwiseMapping& to,
                  int64_t begin, int64_t end) {
  const int64_t taps = problem.footprint.taps();
  for (int64_t task = begin; task < end; ++task) {
    if (task == 0) {
      pack_in_order(problem, from, to);
    } else if (task <= taps) {
      pack_tap(problem, from, task - 1, to);
    } else {
      const int64_t first = (task - 1 - taps) * kPackedChannels;
      pack_channels(problem, from, first, min(kPackedChannels, problem.relation_channels - first), to);
    }
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_PATCHWISE_ATTENTION_MAPPING_H
