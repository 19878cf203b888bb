// The passes that the bindings of pairwise attention in training begin and end with. For source files that are compiled
// for each instruction set, after bands.h.
#pragma once

#include "cpu/pairwise_training/call.h"
#include "cpu/simd/dispatch.h"

namespace sa_layers::cpu {

template <typename T>
ChannelCenters sample_centers(const PairwiseTraining& problem, const TrainingMaps<T>& maps) {
  return average_channels(problem, [&](double* query, double* key, int64_t* count) {
    SA_LAYERS_DISPATCH(T, pairwise_sample_channels, problem, maps, query, key, count);
  });
}

template <typename T>
void add_windows(const PairwiseTraining& problem, const PairParameters<Compute<T>>& parameters,
                 const TrainingMaps<T>& maps, bool with_values) {
  share_tasks(problem.batch * problem.footprint.rows.size, 8, [&](int64_t begin, int64_t end) {
    SA_LAYERS_DISPATCH(T, pairwise_add_windows, problem, parameters, maps, with_values, begin, end);
  });
}

}  // namespace sa_layers::cpu
