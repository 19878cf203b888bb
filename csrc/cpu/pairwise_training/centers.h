// Calls of kernels that several bindings need.
#pragma once

#include "cpu/pairwise_training/bands.h"
#include "cpu/pairwise_training/call.h"

namespace sa_layers::cpu {

template <typename T>
ChannelCenters sample_centers(const PairwiseTraining& problem, const TrainingMaps<T>& maps) {
  ChannelCenters centers{Doubles(problem.channels, 0.0), Doubles(problem.channels, 0.0)};
  int64_t count = 0;
  SA_LAYERS_DISPATCH(T, pairwise_sample_channels, problem, maps, centers.query.data(), centers.key.data(), &count);
  for (Doubles* const sums : {&centers.query, &centers.key}) {
    for (double& sum : *sums) {
      sum /= static_cast<double>(max(int64_t{1}, count));
      if (!(std::abs(sum) < 1e30)) sum = 0;  // an infinite key must not reach all pairs
    }
  }
  return centers;
}

template <typename T>
void add_windows(const PairwiseTraining& problem, const PairParameters<Compute<T>>& parameters,
                 const TrainingMaps<T>& maps, bool with_values) {
  share_tasks(problem.batch * problem.footprint.rows.size, 8, [&](int64_t begin, int64_t end) {
    SA_LAYERS_DISPATCH(T, pairwise_add_windows, problem, parameters, maps, with_values, begin, end);
  });
}

}  // namespace sa_layers::cpu
