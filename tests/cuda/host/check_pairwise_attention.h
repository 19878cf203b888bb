// Pairwise attention against its definition, pair by pair in float64.
#pragma once

#include <algorithm>

#include "buffer.h"
#include "cuda/pairwise_attention_plan.h"
#include "cuda/tiling.h"

namespace sa_layers::cuda {

struct AttentionShape {
  int channels, value_channels, layers, widths[kMappingLayers + 1], positions;
  Relation relation;
  int position_size[2];
  bool epilogue, merged;  // query, key and value are channels of one map
  int gap;                // channels between, which nobody may use
};

inline AttentionShape random_attention() {
  AttentionShape shape = {};
  const bool small = pick(0, 2);
  shape.channels = pick(0, 1) ? 4 * pick(1, small ? 3 : 10) : pick(1, small ? 9 : 40);
  const int weight_channels = pick(0, 1) ? 1 << pick(0, small ? 3 : 5) : pick(1, small ? 7 : 20);
  shape.value_channels = weight_channels * pick(1, 8);
  shape.layers = pick(1, 3), shape.positions = pick(0, 1) ? 2 : pick(0, 4), shape.relation = Relation(pick(0, 4));
  const int factor = shape.relation == Relation::kConcatenation ? 2 : 1;
  shape.widths[0] = (shape.relation == Relation::kDot ? 1 : factor * shape.channels) + shape.positions;
  for (int layer = 1; layer < shape.layers; ++layer) shape.widths[layer] = pick(0, 1) ? shape.channels : pick(1, 40);
  shape.widths[shape.layers] = weight_channels;
  if (pick(0, 2) == 0) shape.position_size[0] = pick(2, 9), shape.position_size[1] = pick(2, 9);
  shape.epilogue = pick(0, 1), shape.merged = pick(0, 2), shape.gap = pick(0, 1) ? 0 : pick(1, 4);
  return shape;
}

inline void describe(const AttentionShape& s) {
  std::printf("channels %d, of the value %d, widths", s.channels, s.value_channels);
  for (int layer = 0; layer <= s.layers; ++layer) std::printf(" %d", s.widths[layer]);
  std::printf(", %d positions of size %d x %d, relation %d, %s, %s, gap %d, %d bytes of shared memory, %d SMs\n",
              s.positions, s.position_size[0], s.position_size[1], int(s.relation), s.epilogue ? "epilogue" : "bare",
              s.merged ? "merged" : "apart", s.gap, emulation::shared_limit, emulation::multiprocessors);
}

template <typename T>
bool check_pairwise_attention(const reference::Problem& p, const AttentionShape& s, Element element, int shift) {
  using C = Compute<T>;
  const int64_t pixels = int64_t(p.height) * p.width;
  const int positions = s.positions, outputs = s.widths[s.layers], inputs = s.widths[0];
  // Maps: channels last, one beside the other or apart, with gaps of NaN.
  const int counts[3] = {s.channels, s.channels, s.value_channels};
  const int all = 2 * s.channels + s.value_channels + 3 * s.gap;
  Buffer<T> merged(p.batch * pixels * all, shift),
      output(int64_t(p.batch) * p.output_height() * p.output_width() * s.value_channels, shift);
  std::vector<Buffer<T>> apart;
  for (int i = 0; i < 3; ++i) apart.emplace_back(p.batch * pixels * (counts[i] + s.gap), shift);
  T* maps[3];
  int64_t step[3];
  merged.forget(), output.forget();
  for (int i = 0, before = 0; i < 3; before += counts[i] + s.gap, ++i) {
    apart[i].forget();
    maps[i] = s.merged ? merged.data() + before : apart[i].data();
    step[i] = s.merged ? all : counts[i] + s.gap;
    for (int64_t pixel = 0; pixel < p.batch * pixels; ++pixel) {
      for (int c = 0; c < counts[i]; ++c) {
        narrow(std::uniform_real_distribution<C>(-1, 1)(generator), maps[i][pixel * step[i] + c]);
      }
    }
  }
  const auto steps = [&](int i) { return MapSteps{pixels * step[i], p.width * step[i], step[i]}; };

  PairwiseAttention problem = {
      geometry(p).footprint, s.relation,         p.batch,  s.channels, s.value_channels, positions, s.layers, {},
      s.position_size[0],    s.position_size[1], steps(0), steps(1),   steps(2),         {}};
  PairwiseAttentionTensors tensors = {};
  std::vector<Buffer<C>> parameters;
  parameters.reserve(20);
  const auto random = [&](int64_t size, double scale) {
    parameters.emplace_back(size, 0);
    parameters.back().randomise();
    for (int64_t i = 0; i < size; ++i) parameters.back().data()[i] *= C(scale);
    return parameters.back().data();
  };
  const C *const scale = random(inputs, 2), *const shift_of = random(inputs, 1);
  const C *const here = random(3 * positions, 1), *const there = random(3 * positions, 1);
  const C *const output_scale = random(s.value_channels, 2), *const output_shift = random(s.value_channels, 1);
  const C *weights[kMappingLayers], *biases[kMappingLayers];
  for (int layer = 0; layer <= s.layers; ++layer) problem.widths[layer] = s.widths[layer];
  for (int layer = 0; layer < s.layers; ++layer) {
    weights[layer] = random(s.widths[layer] * s.widths[layer + 1], 2 / std::sqrt(s.widths[layer]));
    biases[layer] = random(s.widths[layer + 1], 1);
    tensors.weights[layer] = weights[layer], tensors.biases[layer] = biases[layer];
    const bool transposed = pick(0, 3) == 0;
    problem.weight_steps[layer] = transposed ? WeightSteps{1, s.widths[layer + 1]} : WeightSteps{s.widths[layer], 1};
  }
  tensors.query = maps[0], tensors.key = maps[1], tensors.value = maps[2], tensors.output = output.data();
  tensors.scale = scale, tensors.shift = shift_of;
  if (positions) tensors.query_position = here, tensors.key_position = there;
  if (s.epilogue) tensors.output_scale = output_scale, tensors.output_shift = output_shift;
  cudaError_t error = launch_pairwise_attention(problem, element, tensors, nullptr);
  if (error == cudaErrorInvalidConfiguration && emulation::shared_limit < kSharedBytes) {
    emulation::shared_limit = kSharedBytes;  // nothing fits less than any GPU has
    error = launch_pairwise_attention(problem, element, tensors, nullptr);
  }
  if (error) {
    std::printf("the launch was refused\n");
    return false;
  }

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
    return pixel < 0 ? 0.0 : double(widen(maps[map][pixel * step[map] + c]));
  };
  Expected expected(output.size());
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
              features.push_back(position(here + 3 * f, y, x) + (neighbour < 0 ? 0 : position(there + 3 * f, v, u)));
            for (int f = 0; f < inputs; ++f) features[f] = relu(scale[f] * features[f] + shift_of[f]);
            for (int layer = 0; layer < s.layers; ++layer) {
              std::vector<double> result(s.widths[layer + 1]);
              const WeightSteps by = problem.weight_steps[layer];
              for (int o = 0; o < s.widths[layer + 1]; ++o) {
                result[o] = biases[layer][o];
                for (int f = 0; f < s.widths[layer]; ++f)
                  result[o] += weights[layer][o * by.output + f * by.input] * features[f];
                if (layer + 1 < s.layers) result[o] = relu(result[o]);
              }
              features = result;
            }
            logits.push_back(features), neighbours.push_back(neighbour);
          }
        for (int c = 0; c < s.value_channels; ++c) {
          double greatest = -INFINITY, total = 0, sum = 0;
          for (const auto& logit : logits) greatest = std::max(greatest, logit[c % outputs]);
          for (size_t tap = 0; tap < logits.size(); ++tap) {
            const double weight = std::exp(logits[tap][c % outputs] - greatest);
            total += weight, sum += weight * element_of(2, neighbours[tap], c);
          }
          sum /= total;
          if (s.epilogue) sum = relu(sum * output_scale[c] + output_shift[c]);
          expected.sum[at + c] = sum, expected.magnitude[at + c] = 3;
        }
      }
  return agrees("pairwise_attention", output, expected);
}

// There is a plan for whatever is not refused, on every GPU.
inline bool check_plans() {
  constexpr int kThreads = 256;
  static_assert(kMostValueChannels == 4 * kThreads * kAttentionQuads);
  for (const int width : {1, 4, 9, 32, 130, 258, 383, kWidestLayer})
    for (const int outputs : {1, 2, 3, 64, 383, kWidestLayer})
      for (const int value_channels : {outputs, 512, kMostValueChannels})
        for (const int layers : {1, 2, 3})
          for (const int side : {3, 7, 13})
            for (const int bytes : {4, 8})
              for (const int64_t limit : {kSharedBytes, 99 * 1024, 163 * 1024, 227 * 1024}) {
                const Axis axis = {40, side, 1, 1};
                PairwiseAttention problem = {};
                problem.footprint = {axis, axis, Padding::kReflect}, problem.batch = 3;
                problem.value_channels = value_channels, problem.layers = layers;
                for (int layer = 0; layer < layers; ++layer) problem.widths[layer] = width;
                problem.widths[layers] = outputs;
                const PairwiseAttentionPlan plan = plan_pairwise_attention(problem, bytes, limit, 132, kThreads);
                const int quads = plan.pixels * quads_of(value_channels);
                if (plan.pixels > 0 && plan.taps > 0 && plan.shared_bytes <= limit &&
                    quads <= kThreads * kAttentionQuads) {
                  continue;
                }
                std::printf("no good plan for widths %d, %d, %d channels, %d layers, %d bytes, %ld of shared memory\n",
                            width, outputs, value_channels, layers, bytes, long(limit));
                return false;
              }
  return true;
}

}  // namespace sa_layers::cuda
