// Patchwise attention against its definition, footprint by footprint in float64.
#pragma once

#include "buffer.h"
#include "check_pairwise_attention.h"
#include "cuda/common/plan.h"
#include "cuda/patchwise_attention/plan.h"
#include "random_parameter.h"

namespace sa_layers::cuda {

struct PatchShape {
  int channels, value_channels, weight_channels;
  PatchwiseRelation relation;
  bool epilogue, merged;  // query, key and value are channels of one map
  int gap;                // channels between them, which must not be read
  bool overflows;         // features exceed the range of float16
  double roundings = 1;   // how often an operand is rounded on tensor cores
};

inline PatchShape random_patch() {
  PatchShape shape = {};
  const bool small = pick(0, 2);
  shape.channels = pick(0, 1) ? 4 * pick(1, small ? 3 : 12) : pick(1, small ? 9 : 50);
  shape.weight_channels = pick(0, 1) ? 1 << pick(0, small ? 3 : 5) : pick(1, small ? 7 : 40);
  shape.value_channels = shape.weight_channels * pick(1, 8);
  shape.relation = pick(0, 1) ? PatchwiseRelation::kConcatenation : PatchwiseRelation(pick(0, 2));
  shape.epilogue = pick(0, 1), shape.merged = pick(0, 2), shape.gap = pick(0, 1) ? 0 : pick(1, 4);
  return shape;
}

inline void describe(const PatchShape& s) {
  std::printf(
      "patchwise: channels %d, of the value %d, of the weights %d, relation %d, %s, %s, gap %d, %d bytes of shared "
      "memory, %d SMs\n",
      s.channels, s.value_channels, s.weight_channels, int(s.relation), s.epilogue ? "epilogue" : "bare",
      s.merged ? "merged" : "apart", s.gap, emulation::shared_limit, emulation::multiprocessors);
}

// A sum, and the sum of the magnitudes, which bounds its rounding error.
struct Bounded {
  double number = 0, magnitude = 0;

  void add(double factor, const Bounded& other) {
    number += factor * other.number, magnitude += std::fabs(factor) * other.magnitude;
  }
};

// The parameters of both layers of the mapping, and those of the epilogue.
template <typename T>
struct PatchMapping {
  using C = Compute<T>;
  Buffer<C> scales[2], shifts[2];
  RandomParameter<T> weights[2], biases[2];
  Buffer<C> output_scale, output_shift;

  PatchMapping(int features, int taps, int hidden, int channels, int shift)
      : scales{{features, shift}, {hidden, shift}},
        shifts{{features, 0}, {hidden, 0}},
        weights{{int64_t(features) * hidden, 2 / std::sqrt(features)},
                {int64_t(hidden) * taps * hidden, 2 / std::sqrt(hidden)}},
        biases{{hidden, 1}, {hidden * taps, 1}},
        output_scale(channels, 0),
        output_shift(channels, 0) {
    for (Buffer<C>* tensor : {&scales[0], &scales[1], &shifts[0], &shifts[1], &output_scale, &output_shift}) {
      tensor->randomise();
    }
    for (Buffer<C>& scale : scales)
      for (C& number : scale.memory) number *= 2;
  }
};

// Query, key and value, with pixels `step` elements apart, and the mapping.
template <typename T>
struct PatchOperands {
  T* maps[3];
  int64_t step[3];
  PatchMapping<T>& mapping;
};

inline int features_of(const PatchShape& s, int taps) {
  if (s.relation == PatchwiseRelation::kConcatenation) return (1 + taps) * s.channels;
  return s.relation == PatchwiseRelation::kStar ? taps : taps * taps;
}

// The definition. `round` rounds the operands of the mapping's products.
template <typename T, typename Round>
Expected define_patchwise_attention(const reference::Problem& p, const PatchShape& s, const PatchOperands<T>& operands,
                                    const Round& round) {
  PatchMapping<T>& mapping = operands.mapping;
  const int64_t pixels = int64_t(p.height) * p.width;
  const int taps = p.kernel[0] * p.kernel[1], weights = s.weight_channels, features = features_of(s, taps);
  const auto number = [&](int map, int64_t pixel, int c) {
    return pixel < 0 ? 0.0 : double(widen(operands.maps[map][pixel * operands.step[map] + c]));
  };
  const auto rectify = [&](const Bounded& sum) {
    return Bounded{round(sum.number < 0 ? 0 : sum.number), sum.magnitude};
  };
  Expected expected(int64_t(p.batch) * p.output_height() * p.output_width() * s.value_channels);
  int64_t at = 0;
  for (int n = 0; n < p.batch; ++n)
    for (int row = 0; row < p.output_height(); ++row)
      for (int column = 0; column < p.output_width(); ++column, at += s.value_channels) {
        const int y = row * p.stride[0], x = column * p.stride[1];
        const int64_t centre = n * pixels + y * p.width + x;
        std::vector<int64_t> sources;
        for (int i = 0; i < p.kernel[0]; ++i)
          for (int j = 0; j < p.kernel[1]; ++j) {
            const int v = reference::walk(y + (i - p.kernel[0] / 2) * p.dilation[0], p.height, p.reflecting);
            const int u = reference::walk(x + (j - p.kernel[1] / 2) * p.dilation[1], p.width, p.reflecting);
            sources.push_back(v < 0 || u < 0 ? -1 : n * pixels + v * p.width + u);
          }
        std::vector<double> relation;
        const auto add_product = [&](int64_t here, int64_t there) {
          double product = 0;
          for (int c = 0; c < s.channels; ++c) product += number(0, here, c) * number(1, there, c);
          relation.push_back(product);
        };
        if (s.relation == PatchwiseRelation::kConcatenation) {
          for (int c = 0; c < s.channels; ++c) relation.push_back(number(0, centre, c));
          for (int c = 0; c < s.channels; ++c)
            for (const int64_t source : sources) relation.push_back(number(1, source, c));
        }
        if (s.relation == PatchwiseRelation::kStar)
          for (const int64_t there : sources) add_product(centre, there);
        if (s.relation == PatchwiseRelation::kClique)
          for (const int64_t here : sources)
            for (const int64_t there : sources) add_product(here, there);

        std::vector<Bounded> activated(features), hidden(weights);
        for (int f = 0; f < features; ++f) {
          activated[f].add(mapping.scales[0].data()[f], {relation[f], std::fabs(relation[f]) + 1});
          activated[f].add(mapping.shifts[0].data()[f], {1, 1});
          activated[f] = rectify(activated[f]);
        }
        for (int h = 0; h < weights; ++h) {
          const double scale = mapping.scales[1].data()[h];  // part of the weights before they are rounded
          hidden[h].add(scale * mapping.biases[0][h], {1, 1});
          hidden[h].add(mapping.shifts[1].data()[h], {1, 1});
          for (int f = 0; f < features; ++f)
            hidden[h].add(round(scale * mapping.weights[0][int64_t(h) * features + f]), activated[f]);
          hidden[h] = rectify(hidden[h]);
        }
        for (int w = 0; w < weights; ++w)
          for (int tap = 0; tap < taps; ++tap) {
            Bounded weight;
            weight.add(mapping.biases[1][w * taps + tap], {1, 1});
            for (int h = 0; h < weights; ++h)
              weight.add(round(mapping.weights[1][int64_t(w * taps + tap) * weights + h]), hidden[h]);
            for (int c = w; c < s.value_channels; c += weights) {
              const double value = number(2, sources[tap], c);
              expected.sum[at + c] += weight.number * value;
              expected.magnitude[at + c] += weight.magnitude * std::fabs(value);
            }
          }
        for (int c = 0; s.epilogue && c < s.value_channels; ++c) {
          Bounded last;
          last.add(mapping.output_scale.data()[c], {expected.sum[at + c], expected.magnitude[at + c]});
          last.add(mapping.output_shift.data()[c], {1, 1});
          expected.sum[at + c] = last.number < 0 ? 0 : last.number, expected.magnitude[at + c] = last.magnitude;
        }
      }
  return expected;
}

template <typename T>
bool check_patchwise_attention(const reference::Problem& p, const PatchShape& s, Element element, int shift,
                               bool allow_tf32) {
  using C = Compute<T>;
  const int64_t pixels = int64_t(p.height) * p.width;
  const int taps = p.kernel[0] * p.kernel[1];
  // Maps are channels last, in one tensor or in three, with gaps of NaN.
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
  PatchMapping<T> mapping(features_of(s, taps), taps, s.weight_channels, s.value_channels, shift);
  for (int64_t i = 0; s.overflows && i < mapping.scales[0].size(); ++i) mapping.scales[0].data()[i] *= C(5e6);
  const PatchwiseAttention problem = {geometry(p).footprint, s.relation, p.batch, s.channels, s.value_channels,
                                      s.weight_channels,     step[0],    step[1], step[2],    allow_tf32};
  PatchwiseAttentionTensors tensors = {};
  tensors.query = maps[0], tensors.key = maps[1], tensors.value = maps[2], tensors.output = output.data();
  for (int layer = 0; layer < 2; ++layer) {
    tensors.scales[layer] = mapping.scales[layer].data(), tensors.shifts[layer] = mapping.shifts[layer].data();
    tensors.weights[layer] = mapping.weights[layer].parameter();
    tensors.biases[layer] = mapping.biases[layer].parameter();
  }
  // All NaN, as what the kernels read must have been written.
  std::vector<uint32_t> workspace(patchwise_workspace_bytes(problem, element) / 4, UINT32_MAX);
  tensors.workspace = workspace.data();
  if (s.epilogue)
    tensors.output_scale = mapping.output_scale.data(), tensors.output_shift = mapping.output_shift.data();
  cudaError_t error = launch_patchwise_attention(problem, element, tensors, nullptr);
  if (error == cudaErrorInvalidConfiguration && emulation::shared_limit < kDefaultSharedBytes) {
    emulation::shared_limit = kDefaultSharedBytes;  // less than every GPU has need not suffice
    error = launch_patchwise_attention(problem, element, tensors, nullptr);
  }
  if (error) {
    std::printf("the launch was refused\n");
    return false;
  }

  if (s.overflows) {
    for (int64_t i = 0; i < output.size(); ++i) {
      if (!std::isnan(widen(output.data()[i]))) continue;
      std::printf("patchwise_attention of large features: element %ld\n", long(i));
      return false;
    }
    return true;
  }
  const PatchOperands<T> operands = {{maps[0], maps[1], maps[2]}, {step[0], step[1], step[2]}, mapping};
  const bool on_tensor_cores = std::is_same_v<T, __half> ? emulation::architecture >= 75
                               : std::is_same_v<T, float>
                                   ? emulation::architecture >= 80 && allow_tf32
                                   : emulation::architecture >= 80 && std::is_same_v<T, __nv_bfloat16>;
  const Expected exact = define_patchwise_attention(p, s, operands, [](double factor) { return factor; });
  if (!on_tensor_cores) return agrees("patchwise_attention", output, exact);
  if constexpr (!std::is_same_v<T, double>) {
    const auto round = [](double number) {
      Factor<T, true> factor;
      round_to_factor(float(number), factor);
      return double(as_float(factor));
    };
    const Expected rounded = define_patchwise_attention(p, s, operands, round);
    return agrees("patchwise_attention with rounded factors", output, rounded, s.roundings * kRoundedTolerance<T>) &&
           agrees("patchwise_attention on tensor cores", output, exact, s.roundings * kTensorTolerance<T>);
  }
  return false;
}

// Features beyond the range of float16 do not become NaN.
inline bool check_patchwise_overflow() {
  const reference::Problem p = {1, 8, 2, 4, 4, {3, 3}, {1, 1}, {1, 1}, true};
  const PatchShape shape = {8, 8, 2, PatchwiseRelation::kConcatenation, false, true, 0, true};
  emulation::architecture = 90;
  return check_patchwise_attention<__half>(p, shape, Element::kFloat16, 0, false);
}

// The first and the last stage of SAN, on small maps: many pixels of few channels, and few of many.
inline bool check_san_patchwise() {
  for (const int channels : {4, 16, 128}) {
    const int side = channels == 4 ? 9 : channels == 16 ? 6 : 3, kernel = channels == 16 ? 7 : 3;
    const reference::Problem p = {1, 4 * channels, channels / 2, side, side, {kernel, kernel}, {1, 1}, {1, 1}, true};
    const PatchShape shape = {channels, 4 * channels, channels / 2, PatchwiseRelation::kConcatenation, true, true,
                              0,        false};
    for (const int limit : {64 * 1024, 227 * 1024}) {
      emulation::shared_limit = limit, emulation::multiprocessors = 1, emulation::architecture = 90;
      if (check_patchwise_attention<__half>(p, shape, Element::kFloat16, 0, false) &&
          check_patchwise_attention<float>(p, shape, Element::kFloat32, 0, false) &&
          check_patchwise_attention<float>(p, shape, Element::kFloat32, 0, true)) {
        continue;
      }
      describe(shape);
      return false;
    }
  }
  return true;
}

// Every problem within the limits has a plan that the kernel can execute, on every GPU.
inline bool check_patchwise_plans() {
  constexpr int kThreads = 256;
  const ProductTiles kPieces[] = {multiply_add_tiles(4), multiply_add_tiles(8), tensor_core_tiles(2),
                                  tensor_core_tiles(4)};
  const auto check = [&](const PatchwiseAttention& problem, const ProductTiles& tiles, int64_t limit) {
    // Tensor cores need a warp for every kWarpColumns weights; more are left to multiply-adds.
    if (problem.weight_channels > kThreads / tiles.threads * tiles.columns) return true;
    const auto plan = plan_patchwise_attention(problem, tiles, limit, 132, kThreads);
    const int workers = kThreads / tiles.threads, units = round_up(plan.pixels, tiles.rows) / tiles.rows *
                                                          (round_up(plan.hidden, tiles.columns) / tiles.columns);
    return plan.pixels > 0 && plan.shared_bytes <= limit && plan.parts > 0 && plan.parts * units <= workers &&
           plan.pixels * plan.shares * plan.slice <= 4 * kThreads * kPatchwisePacks && plan.depth <= 4 * kThreads &&
           plan.panel_taps * plan.panel_channels <= plan.depth && plan.depth % tiles.step == 0 && plan.taps > 0 &&
           plan.slice > 0 && plan.taps * plan.slice <= plan.columns && plan.columns <= 4 * kThreads;
  };
  for (const int channels : {1, 16, 300})
    for (const int weights : {2, 3, 64, kPatchwiseWeights})
      for (const int shares : {1, 8, kPatchwiseValues / weights})
        for (const auto relation : {PatchwiseRelation::kConcatenation, PatchwiseRelation::kClique})
          for (const int side : {3, 7, 63})
            for (const int batch : {1, 64})
              for (const ProductTiles& tiles : kPieces)
                for (const int64_t limit : {64 * 1024, 227 * 1024}) {
                  const Axis axis = {14, side, 1, 1};
                  PatchwiseAttention problem = {};
                  problem.footprint = {axis, axis, Padding::kReflect}, problem.batch = batch;
                  problem.relation = relation, problem.relation_channels = channels;
                  problem.weight_channels = weights, problem.value_channels = weights * shares;
                  if (problem.value_channels > kPatchwiseValues || check(problem, tiles, limit)) continue;
                  std::printf(
                      "no good plan for %d channels, %d weights of %d channels each, side %d, %d bytes, tiles of %d "
                      "columns, %ld of shared memory\n",
                      channels, weights, shares, side, tiles.numbers.factor_bytes, tiles.columns, long(limit));
                  return false;
                }
  return true;
}

}  // namespace sa_layers::cuda
