// The passes that the bindings of pairwise attention in training begin and end with.
#pragma once

#include "cpu/pairwise_training/call.h"

namespace sa_layers::cpu {

// The means of the channels of query and key, from a sample of pixels.
template <typename T>
ChannelCenters sample_centers(const PairwiseTraining& problem, const TrainingMaps<T>& maps);

// Adds the gradients of what windows read to the gradients of the maps.
template <typename T>
void add_windows(const PairwiseTraining& problem, const PairParameters<Compute<T>>& parameters,
                 const TrainingMaps<T>& maps, bool with_values);

}  // namespace sa_layers::cpu
