// From the sums of the bands to the results of a pass, in float64.
#pragma once

#include <algorithm>
#include <cmath>

#include "cpu/pairwise_training/folding.h"

namespace sa_layers::cpu {

// The sums of all bands, which are added in order.
class TotalSums {
 public:
  TotalSums(const PairwiseTraining& problem, const SumsLayout& layout)
      : layout_(layout), bands_(problem.bands()), sums_(max(int64_t{1}, bands_) * layout.size) {}

  // Uninitialised: every band clears its own.
  double* bands() { return sums_.data(); }
  const double* add_up() {
    double* const total = sums_.data();
    if (bands_ == 0) std::fill(total, total + layout_.size, 0.0);
    for (int64_t band = 1; band < bands_; ++band) {
      const double* const from = total + band * layout_.size;
      for (int64_t i = 0; i < layout_.size; ++i) total[i] += from[i];
    }
    return total;
  }

 private:
  const SumsLayout& layout_;
  int64_t bands_;
  Scratch<double> sums_;
};

// The sums of g and of g * (r - mean) over all pairs, (2, features), and the gradients of the position's matrices,
// (2, positions, 3).
struct FeatureGradients {
  Doubles features, position;
};

// From a band's sums; `factor` is that from gradients of scale * r to those of r.
inline FeatureGradients feature_gradients(const PairGeometry& geometry, const Doubles& relation_center,
                                          const Doubles& mean, const Doubles& factor, const SumsLayout& layout,
                                          const double* sums) {
  const PairwiseTraining& problem = geometry.problem;
  const int64_t features = problem.features(), relation = problem.relation_channels(), positions = problem.positions;
  FeatureGradients result{Doubles(2 * features, 0.0), Doubles(6 * positions, 0.0)};
  double *const total = result.features.data(), *const moment = total + features;
  const double *const query = sums + layout.query_moments, *const key = sums + layout.key_moments;
  for (int64_t d = 0; d < relation; ++d) total[d] = sums[layout.features + d];
  for (int64_t c = 0; c < problem.channels; ++c) {
    if (problem.is_difference()) moment[c] += query[c];
    moment[problem.relation == Relation::kDot ? 0 : problem.key_column() + c] += problem.key_sign() * key[c];
  }
  for (int64_t d = 0; d < relation; ++d) moment[d] += (relation_center[d] - mean[d]) * total[d];
  if (positions == 0 || problem.by_offset) return result;
  for (int64_t p = 0; p < positions; ++p) {
    const int64_t d = relation + p;
    total[d] = sums[layout.features + problem.column_of(d)];
    const double *const of_query = sums + layout.position + 3 * p, *const of_key = of_query + 3 * positions;
    for (int64_t i = 0; i < 3; ++i) {
      moment[d] += geometry.query_position[3 * p + i] * of_query[i] + geometry.key_position[3 * p + i] * of_key[i];
      result.position[3 * p + i] = factor[d] * of_query[i];
      result.position[3 * (positions + p) + i] = factor[d] * of_key[i];
    }
    moment[d] -= mean[d] * total[d];
  }
  return result;
}

// The same for position features that depend on the offset, from the sums of their gradients by offset (offsets,
// positions). The matrices are opposite, so the gradients in x and y are given to the first.
inline void add_offset_gradients(const PairGeometry& geometry, const Doubles& by_offset, const Doubles& mean,
                                 const Doubles& factor, FeatureGradients* result) {
  const PairwiseTraining& problem = geometry.problem;
  const int64_t positions = problem.positions, features = problem.features();
  for (int64_t offset = 0; offset < problem.offsets(); ++offset) {
    for (int64_t p = 0; p < positions; ++p) {
      const int64_t d = problem.relation_channels() + p;
      const double gradient = by_offset[offset * positions + p];
      double *const query = result->position.data() + 3 * p, *const key = query + 3 * positions;
      result->features[d] += gradient;
      result->features[features + d] += gradient * (geometry.features[offset * positions + p] - mean[d]);
      query[0] += factor[d] * gradient * geometry.difference(offset, 0);
      query[1] += factor[d] * gradient * geometry.difference(offset, 1);
      query[2] += factor[d] * gradient, key[2] += factor[d] * gradient;
    }
  }
}

// relu(scale * r + shift) of the position features by offset, (offsets, positions).
inline Doubles activate_offsets(const PairGeometry& geometry, const Doubles& scale, const Doubles& shift) {
  Doubles result = geometry.features;
  const int64_t positions = geometry.problem.positions;
  for (size_t i = 0; i < result.size(); ++i) {
    const int64_t d = geometry.problem.relation_channels() + static_cast<int64_t>(i) % positions;
    const double feature = scale[d] * result[i] + shift[d];
    result[i] = feature > 0 || std::isnan(feature) ? feature : 0.0;
  }
  return result;
}

}  // namespace sa_layers::cpu
