// What an operator is asked to do, apart from its tensors. Plain C++, for bindings and kernels, host and device.
#pragma once

#include "footprint.h"

namespace sa_layers {

// Channel c of the value uses the weight map c % weight_channels.
struct Aggregation {
  Footprint footprint;
  int64_t batch, channels, weight_channels;

  SA_LAYERS_HOST_DEVICE int64_t weight_maps() const { return batch * weight_channels; }
  // How many channels share a weight map; the first maps have one more when the division leaves a rest.
  SA_LAYERS_HOST_DEVICE int64_t sharing(int64_t weight_channel) const {
    return (channels - weight_channel + weight_channels - 1) / weight_channels;
  }
};

enum class Relation { kSubtraction, kSummation, kHadamard, kDot, kConcatenation };

SA_LAYERS_HOST_DEVICE inline bool is_product(Relation relation) {
  return relation == Relation::kHadamard || relation == Relation::kDot;
}

// Of patchwise attention: [query, keys]; query * key of every tap; query of every tap * key of every tap.
enum class PatchwiseRelation { kConcatenation, kStar, kClique };

}  // namespace sa_layers
