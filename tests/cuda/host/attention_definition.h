// Pairwise attention by its definition, pair by pair in float64.
#pragma once

#include <algorithm>
#include <vector>

#include "buffer.h"
#include "cuda/pairwise_attention/problem.h"
#include "random_parameter.h"
#include "reference.h"

namespace sa_layers::cuda {

struct AttentionShape {
  int channels, value_channels, layers, widths[kMappingLayers + 1], positions;
  Relation relation;
  int position_size[2];
  bool epilogue, merged;  // query, key and value are channels of one map
  int gap;                // channels between them, which must not be read
  bool overflows;         // features exceed the range of float16
  double steepness = 1;   // of the logits
  double roundings = 1;   // how often a feature is rounded on tensor cores
};

// Query, key and value, with pixels `step` elements apart, and the parameters.
template <typename T>
struct AttentionOperands {
  using C = Compute<T>;
  T* maps[3];
  int64_t step[3];
  const C *scales[kMappingLayers], *shifts[kMappingLayers];
  std::vector<RandomParameter<T>> weights, biases;  // of each layer
  WeightSteps weight_steps[kMappingLayers];
  const C *here, *there, *output_scale, *output_shift;
};

// `round` rounds the operands of the mapping's products.
template <typename T, typename Round>
Expected define_attention(const reference::Problem& p, const AttentionShape& s, const AttentionOperands<T>& operands,
                          const Round& round) {
  using C = Compute<T>;
  const int64_t pixels = int64_t(p.height) * p.width;
  const int positions = s.positions, outputs = s.widths[s.layers], inputs = s.widths[0];
  const auto relu = [](double number) { return number < 0 ? 0 : number; };
  const auto coordinate = [](int index, int length, int size) {
    if (!size && length == 1) return -1.0;
    return (index - 0.5 * (length - 1)) * 2.0 / ((size ? size : length) - 1);
  };
  const auto position = [&](const C* matrix, int y, int x) {
    return matrix[0] * coordinate(x, p.width, s.position_size[1]) +
           matrix[1] * coordinate(y, p.height, s.position_size[0]) + matrix[2];
  };
  const auto element_of = [&](int map, int64_t pixel, int c) {
    return pixel < 0 ? 0.0 : double(widen(operands.maps[map][pixel * operands.step[map] + c]));
  };
  // The norm after a layer is part of its weights, (output, input), before they are rounded, and of its biases.
  std::vector<double> weights[kMappingLayers], biases[kMappingLayers];
  for (int layer = 0; layer < s.layers; ++layer) {
    const WeightSteps by = operands.weight_steps[layer];
    const bool is_last = layer + 1 == s.layers;
    for (int o = 0; o < s.widths[layer + 1]; ++o) {
      const double scale = is_last ? 1 : operands.scales[layer + 1][o];
      const double shift = is_last ? 0 : operands.shifts[layer + 1][o];
      biases[layer].push_back(scale * operands.biases[layer][o] + shift);
      for (int f = 0; f < s.widths[layer]; ++f)
        weights[layer].push_back(round(scale * operands.weights[layer][o * by.output + f * by.input]));
    }
  }
  Expected expected(int64_t(p.batch) * p.output_height() * p.output_width() * s.value_channels);
  int64_t at = 0;
  for (int n = 0; n < p.batch; ++n)
    for (int row = 0; row < p.output_height(); ++row)
      for (int column = 0; column < p.output_width(); ++column, at += s.value_channels) {
        const int y = row * p.stride[0], x = column * p.stride[1];
        const int64_t centre = n * pixels + y * p.width + x;
        std::vector<std::vector<double>> logits;
        std::vector<int64_t> neighbours;
        for (int i = 0; i < p.kernel[0]; ++i)
          for (int j = 0; j < p.kernel[1]; ++j) {
            const int v = reference::walk(y + (i - p.kernel[0] / 2) * p.dilation[0], p.height, p.reflecting);
            const int u = reference::walk(x + (j - p.kernel[1] / 2) * p.dilation[1], p.width, p.reflecting);
            const int64_t neighbour = v < 0 || u < 0 ? -1 : n * pixels + v * p.width + u;
            std::vector<double> features;
            double dot = 0;
            for (int c = 0; c < s.channels; ++c) {
              const double q = element_of(0, centre, c), k = element_of(1, neighbour, c);
              dot += q * k;
              if (s.relation == Relation::kSubtraction) features.push_back(q - k);
              if (s.relation == Relation::kSummation) features.push_back(q + k);
              if (s.relation == Relation::kHadamard) features.push_back(q * k);
              if (s.relation == Relation::kConcatenation) features.push_back(q);
            }
            for (int c = 0; s.relation == Relation::kConcatenation && c < s.channels; ++c)
              features.push_back(element_of(1, neighbour, c));
            if (s.relation == Relation::kDot) features.push_back(dot);
            for (int f = 0; f < positions; ++f)
              features.push_back(position(operands.here + 3 * f, y, x) +
                                 (neighbour < 0 ? 0 : position(operands.there + 3 * f, v, u)));
            for (int f = 0; f < inputs; ++f)
              features[f] = round(relu(operands.scales[0][f] * features[f] + operands.shifts[0][f]));
            for (int layer = 0; layer < s.layers; ++layer) {
              std::vector<double> result(s.widths[layer + 1]);
              for (int o = 0; o < s.widths[layer + 1]; ++o) {
                const double *const row = weights[layer].data() + o * s.widths[layer], *const input = features.data();
                double sum = biases[layer][o];
                for (int f = 0; f < s.widths[layer]; ++f) sum += row[f] * input[f];
                result[o] = sum;
                if (layer + 1 < s.layers) result[o] = round(relu(result[o]));
              }
              features = result;
            }
            logits.push_back(features), neighbours.push_back(neighbour);
          }
        for (int c = 0; c < s.value_channels; ++c) {
          double maximum = -INFINITY, total = 0, sum = 0;
          for (const auto& logit : logits) maximum = std::max(maximum, logit[c % outputs]);
          for (size_t tap = 0; tap < logits.size(); ++tap) {
            const double weight = std::exp(logits[tap][c % outputs] - maximum);
            total += weight, sum += weight * element_of(2, neighbours[tap], c);
          }
          sum /= total;
          if (s.epilogue) sum = relu(sum * operands.output_scale[c] + operands.output_shift[c]);
          expected.sum[at + c] = sum, expected.magnitude[at + c] = 3;
        }
      }
  return expected;
}

}  // namespace sa_layers::cuda
