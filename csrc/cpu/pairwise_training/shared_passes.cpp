// The passes that the bindings of pairwise attention in training begin and end with, for each element type.

#include "cpu/pairwise_training/shared_passes.h"

#include "cpu/simd/dispatch.h"

#define SA_LAYERS_TARGET_INCLUDE "cpu/pairwise_training/shared_passes.cpp"
#include "cpu/simd/foreach_target.h"

// Compiled once for each instruction set.
#include "cpu/pairwise_training/bands.h"

#if SA_LAYERS_ONCE

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

#define SA_LAYERS_INSTANTIATE(T)                                                              \
  template ChannelCenters sample_centers<T>(const PairwiseTraining&, const TrainingMaps<T>&); \
  template void add_windows<T>(const PairwiseTraining&, const PairParameters<Compute<T>>&, const TrainingMaps<T>&, bool)
SA_LAYERS_INSTANTIATE(float);
SA_LAYERS_INSTANTIATE(double);
SA_LAYERS_INSTANTIATE(Half);
SA_LAYERS_INSTANTIATE(BFloat16);
#undef SA_LAYERS_INSTANTIATE

}  // namespace sa_layers::cpu

#endif  // SA_LAYERS_ONCE
