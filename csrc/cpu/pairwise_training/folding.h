// Folding of the parameters of a pass into what its kernels read: norms into layers, centres into shifts, all in
// float64 and rounded once.
#pragma once

#include <deque>
#include <limits>

#include "cpu/pairwise_training/geometry.h"

namespace sa_layers::cpu {

// The mapping in float64; see sa_layers/ops/pairwise_training.py.
struct MappingInDouble {
  Doubles scale1, shift1, mean1, center, weight1, scale2, shift2, weight2;
};

// The means of some pixels of query and key, which are subtracted first: differences of large numbers would lose
// digits.
struct ChannelCenters {
  Doubles query, key;
};

template <typename C>
class FoldedParameters {
 public:
  PairParameters<C> parameters{};
  // Of the relation's columns: the difference of the centres, which sums about the centres lack.
  Doubles relation_center;
  // Of every feature: the centre as it is rounded.
  Doubles center;

  // Features are scale * r + shift - center of every pair, not less than -center if they are cut.
  FoldedParameters(const PairGeometry& geometry, const ChannelCenters& centers, const Doubles& scale,
                   const Doubles& shift, const Doubles& center_, bool is_cut)
      : geometry_(geometry), problem_(geometry.problem) {
    for (const double number : center_) center.push_back(static_cast<double>(static_cast<C>(number)));
    fold_columns(scale, shift, is_cut);
    fold_channels(centers, scale, shift);
    fold_positions(scale, shift);
    // Gradients are those of scale * r.
    set_factors(scale);
  }
  FoldedParameters(const FoldedParameters&) = delete;
  FoldedParameters& operator=(const FoldedParameters&) = delete;

  // From sums of a feature's gradients to gradients of the maps: the factor of each feature.
  void set_factors(const Doubles& factor) {
    Doubles query(padded_channels(), 0.0), key(padded_channels(), 0.0);
    for (int64_t c = 0; c < problem_.channels; ++c) {
      const bool is_dot = problem_.relation == Relation::kDot;
      query[c] = factor[is_dot ? 0 : c];
      key[c] = problem_.key_sign() * factor[is_dot ? 0 : problem_.key_column() + c];
    }
    parameters.query_factor = keep(query), parameters.key_factor = keep(key);
  }

  // The layers of the mapping.
  void fold_layers(const MappingInDouble& mapping, const Doubles& positions_by_offset) {
    const int64_t features = problem_.features(), hidden = problem_.hidden, width = problem_.padded_hidden();
    const int64_t columns = problem_.padded_columns(), logits = problem_.padded_weights();
    Doubles weight1(problem_.columns() * width, 0.0), summand1(problem_.offsets() * width, 0.0);
    Doubles weight2(hidden * logits, 0.0);
    Doubles weight1_backward(hidden * columns, 0.0), weight2_backward(problem_.weight_channels * width, 0.0);
    for (int64_t o = 0; o < hidden; ++o) {
      double summand = mapping.shift2[o];
      for (int64_t d = 0; d < features_in_columns(); ++d) {
        const double weight = mapping.scale2[o] * mapping.weight1[o * features + d];
        weight1[problem_.column_of(d) * width + o] = weight;
        weight1_backward[o * columns + problem_.column_of(d)] = weight;
        summand += weight * center[d];
      }
      for (int64_t offset = 0; offset < problem_.offsets(); ++offset) {
        double sum = summand;
        for (int64_t d = features_in_columns(); d < features; ++d) {
          const double position = positions_by_offset[offset * problem_.positions + d - problem_.relation_channels()];
          sum += mapping.scale2[o] * mapping.weight1[o * features + d] * position;
        }
        summand1[offset * width + o] = sum;
      }
      for (int64_t g = 0; g < logits; ++g) {
        constexpr double kLog2e = 1.4426950408889634;
        weight2[o * logits + g] = kLog2e * mapping.weight2[g % problem_.weight_channels * hidden + o];
      }
      for (int64_t g = 0; g < problem_.weight_channels; ++g) {
        weight2_backward[g * width + o] = mapping.weight2[g * hidden + o];
      }
    }
    parameters.weight1 = keep(weight1), parameters.summand1 = keep(summand1), parameters.weight2 = keep(weight2);
    parameters.weight1_backward = keep(weight1_backward), parameters.weight2_backward = keep(weight2_backward);
  }

  // The matrix (features, features) of a correction, and its summands by offset (offsets, features).
  void fold_matrix(const Doubles& matrix, const Doubles& summands) {
    const int64_t features = problem_.features(), width = problem_.padded_columns();
    Doubles weight(problem_.columns() * width, 0.0), by_offset(problem_.offsets() * width, 0.0);
    for (int64_t e = 0; e < features_in_columns(); ++e) {
      for (int64_t d = 0; d < features_in_columns(); ++d) {
        weight[problem_.column_of(d) * width + problem_.column_of(e)] = matrix[e * features + d];
      }
      for (int64_t offset = 0; offset < problem_.offsets(); ++offset) {
        by_offset[offset * width + problem_.column_of(e)] = summands[offset * features + e];
      }
    }
    parameters.weight1 = keep(weight), parameters.summand1 = keep(by_offset);
  }

  int64_t features_in_columns() const {
    return problem_.by_offset ? problem_.relation_channels() : problem_.features();
  }

 private:
  int64_t padded_channels() const { return round_up(problem_.channels, kMaxLanes); }

  // Kernels load full vectors, also of the last channels.
  const C* keep(const Doubles& numbers) {
    std::vector<C>& kept = kept_.emplace_back(numbers.begin(), numbers.end());
    kept.resize(kept.size() + kMaxLanes, C{0});
    return kept.data();
  }

  void fold_columns(const Doubles& scale, const Doubles& shift, bool is_cut) {
    Doubles scales(problem_.padded_columns(), 0.0), shifts(scales), floors(scales);
    for (int64_t d = 0; d < features_in_columns(); ++d) {
      const int64_t column = problem_.column_of(d);
      scales[column] = scale[d], shifts[column] = shift[d] - center[d];
      floors[column] = is_cut ? -center[d] : -std::numeric_limits<double>::infinity();
    }
    parameters.scale = keep(scales), parameters.shift = keep(shifts), parameters.floor = keep(floors);
  }

  void fold_channels(const ChannelCenters& centers, const Doubles& scale, const Doubles& shift) {
    Doubles query_center(padded_channels(), 0.0), query_scale(query_center), key_center(query_center),
        key_scale(query_center), pixel_shift(problem_.map_columns(), 0.0);
    relation_center.assign(problem_.relation_channels(), 0.0);
    for (int64_t c = 0; c < problem_.channels; ++c) {
      if (problem_.is_difference()) {
        const int64_t of_key = problem_.key_column() + c;
        query_center[c] = static_cast<double>(static_cast<C>(centers.query[c]));
        key_center[c] = static_cast<double>(static_cast<C>(centers.key[c]));
        query_scale[c] = scale[c], key_scale[c] = -problem_.key_sign() * scale[of_key];
        relation_center[c] += query_center[c];
        relation_center[of_key] += problem_.key_sign() * key_center[c];
      } else {
        query_scale[c] = 1, key_scale[c] = 1;
      }
    }
    if (problem_.is_difference()) {
      for (int64_t d = 0; d < problem_.relation_channels(); ++d) {
        pixel_shift[d] = shift[d] + scale[d] * relation_center[d] - center[d];
      }
    }
    parameters.query_center = keep(query_center), parameters.query_scale = keep(query_scale);
    parameters.key_center = keep(key_center), parameters.key_scale = keep(key_scale);
    parameters.pixel_shift = keep(pixel_shift);
  }

  void fold_positions(const Doubles& scale, const Doubles& shift) {
    query_position_ = geometry_.query_position, key_position_ = geometry_.key_position;
    for (int64_t p = 0; p < problem_.positions; ++p) {
      const int64_t d = problem_.relation_channels() + p;
      for (int64_t i = 3 * p; i < 3 * p + 3; ++i) query_position_[i] *= scale[d], key_position_[i] *= -scale[d];
      query_position_[3 * p + 2] += shift[d] - center[d];
    }
    parameters.query_position = query_position_.data(), parameters.key_position = key_position_.data();
    parameters.row_coordinates = geometry_.row_coordinates.data();
    parameters.column_coordinates = geometry_.column_coordinates.data();
  }

  const PairGeometry& geometry_;
  const PairwiseTraining& problem_;
  std::deque<std::vector<C>> kept_;
  Doubles query_position_, key_position_;
};

}  // namespace sa_layers::cpu
