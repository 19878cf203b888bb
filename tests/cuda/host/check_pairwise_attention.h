// Pairwise attention against its definition, with exact operands and with those that tensor cores read.
#pragma once

#include "attention_definition.h"
#include "cuda/common/factor.cuh"
#include "cuda/common/plan.h"
#include "cuda/pairwise_attention/plan.h"

namespace sa_layers::cuda {

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
  std::printf(
      ", %d positions of size %d x %d, relation %d, %s, %s, gap %d, %d bytes of shared memory, %d SMs of architecture "
      "%d\n",
      s.positions, s.position_size[0], s.position_size[1], int(s.relation), s.epilogue ? "epilogue" : "bare",
      s.merged ? "merged" : "apart", s.gap, emulation::shared_limit, emulation::multiprocessors,
      emulation::architecture);
}

template <typename F>
float as_float(F factor) {
  return widen(factor);
}
inline float as_float(TensorFloat factor) { return factor.number; }

// With the same rounding of operands, results differ where a sum is near the middle between two of them; from the exact
// definition they differ by the rounding of features, weights and activations.
template <typename T>
constexpr double kRoundedTolerance = std::is_same_v<T, float> ? 1e-4 : kTolerance<T>;
template <typename T>
constexpr double kTensorTolerance = std::is_same_v<T, float> ? 5e-4 : kTolerance<T>;

template <typename T>
bool check_pairwise_attention(const reference::Problem& p, const AttentionShape& s, Element element, int shift,
                              bool allow_tf32 = false) {
  using C = Compute<T>;
  const int64_t pixels = int64_t(p.height) * p.width;
  const int positions = s.positions;
  // Maps are channels last, in one tensor or in three, with gaps of NaN.
  const int counts[3] = {s.channels, s.channels, s.value_channels};
  const int all = 2 * s.channels + s.value_channels + 3 * s.gap;
  Buffer<T> merged(p.batch * pixels * all, shift),
      output(int64_t(p.batch) * p.output_height() * p.output_width() * s.value_channels, shift);
  std::vector<Buffer<T>> apart;
  for (int i = 0; i < 3; ++i) apart.emplace_back(p.batch * pixels * (counts[i] + s.gap), shift);
  AttentionOperands<T> operands = {};
  T*(&maps)[3] = operands.maps;
  int64_t (&step)[3] = operands.step;
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
      geometry(p).footprint, s.relation,         p.batch,  s.channels, s.value_channels, positions, s.layers,  {},
      s.position_size[0],    s.position_size[1], steps(0), steps(1),   steps(2),         {},        allow_tf32};
  PairwiseAttentionTensors tensors = {};
  std::vector<Buffer<C>> parameters;
  parameters.reserve(20);
  const auto random = [&](int64_t size, double scale) {
    parameters.emplace_back(size, 0);
    parameters.back().randomise();
    for (int64_t i = 0; i < size; ++i) parameters.back().data()[i] *= C(scale);
    return parameters.back().data();
  };
  operands.here = random(3 * positions, 1), operands.there = random(3 * positions, 1);
  operands.output_scale = random(s.value_channels, 2), operands.output_shift = random(s.value_channels, 1);
  for (int layer = 0; layer <= s.layers; ++layer) problem.widths[layer] = s.widths[layer];
  for (int layer = 0; layer < s.layers; ++layer) {
    const int inputs = s.widths[layer], outputs = s.widths[layer + 1];
    operands.scales[layer] = random(inputs, s.overflows && layer == 0 ? 1e7 : 2);
    operands.shifts[layer] = random(inputs, 1);
    operands.weights.emplace_back(inputs * outputs, (layer + 1 < s.layers ? 2 : 2 * s.steepness) / std::sqrt(inputs));
    operands.biases.emplace_back(outputs, 1);
    tensors.scales[layer] = operands.scales[layer], tensors.shifts[layer] = operands.shifts[layer];
    tensors.weights[layer] = operands.weights[layer].parameter();
    tensors.biases[layer] = operands.biases[layer].parameter();
    const bool transposed = pick(0, 3) == 0;
    problem.weight_steps[layer] = transposed ? WeightSteps{1, outputs} : WeightSteps{inputs, 1};
    operands.weight_steps[layer] = problem.weight_steps[layer];
  }
  tensors.query = maps[0], tensors.key = maps[1], tensors.value = maps[2], tensors.output = output.data();
  if (positions) tensors.query_position = operands.here, tensors.key_position = operands.there;
  if (s.epilogue) tensors.output_scale = operands.output_scale, tensors.output_shift = operands.output_shift;
  const int64_t bytes = pairwise_workspace_bytes(problem, element, tensors);
  std::vector<C> workspace(bytes / sizeof(C), std::numeric_limits<C>::quiet_NaN());
  if (bytes) tensors.workspace = workspace.data();
  cudaError_t error = launch_pairwise_attention(problem, element, tensors, nullptr);
  if (error == cudaErrorInvalidConfiguration && emulation::shared_limit < kDefaultSharedBytes) {
    emulation::shared_limit = kDefaultSharedBytes;  // less than every GPU has need not suffice
    error = launch_pairwise_attention(problem, element, tensors, nullptr);
  }
  if (error) {
    std::printf("the launch was refused\n");
    return false;
  }

  const bool on_tensor_cores = std::is_same_v<T, __half> ? emulation::architecture >= 75
                               : std::is_same_v<T, float>
                                   ? emulation::architecture >= 80 && allow_tf32
                                   : emulation::architecture >= 80 && std::is_same_v<T, __nv_bfloat16>;
  if (s.overflows) {  // averages of values stay within their range
    for (int64_t i = 0; i < output.size(); ++i) {
      if (std::fabs(double(widen(output.data()[i]))) <= 1) continue;
      std::printf("pairwise_attention of large features: element %ld\n", long(i));
      return false;
    }
    return true;
  }
  const Expected exact = define_attention(p, s, operands, [](double number) { return number; });
  if (!on_tensor_cores) return agrees("pairwise_attention", output, exact);
  if constexpr (std::is_same_v<T, double>) {
    return false;
  } else {
    const auto round = [](double number) {
      Factor<T, true> factor;
      round_to_factor(float(number), factor);
      return double(as_float(factor));
    };
    if (s.steepness > 1) return agrees("pairwise_attention of steep logits", output, exact, 0.03 * s.steepness);
    const Expected rounded = define_attention(p, s, operands, round);
    return agrees("pairwise_attention with rounded factors", output, rounded, s.roundings * kRoundedTolerance<T>) &&
           agrees("pairwise_attention on tensor cores", output, exact, s.roundings * kTensorTolerance<T>);
  }
}

// Every problem within the limits has a plan, on every GPU.
inline bool check_plans() {
  constexpr int kThreads = 256;
  static_assert(kMostValueChannels == 4 * kThreads * kAttentionPacks);
  const ProductTypes kNumbers[] = {{4, 4, false}, {8, 8, false}, {2, 4, true}, {4, 4, true}};
  for (const int width : {1, 4, 9, 32, 130, 258, 383, kWidestLayer})
    for (const int outputs : {1, 2, 3, 64, 383, kWidestLayer})
      for (const int value_channels : {outputs, 512, kMostValueChannels})
        for (const int layers : {1, 2, 3})
          for (const int side : {3, 7, 13})
            for (const ProductTypes& numbers : kNumbers)
              for (const int64_t limit : {kDefaultSharedBytes, 99 * 1024, 163 * 1024, 227 * 1024}) {
                const Axis axis = {40, side, 1, 1};
                PairwiseAttention problem = {};
                problem.footprint = {axis, axis, Padding::kReflect}, problem.batch = 3;
                problem.value_channels = value_channels, problem.layers = layers;
                for (int layer = 0; layer < layers; ++layer) problem.widths[layer] = width;
                problem.widths[layers] = outputs;
                const PairwiseAttentionPlan plan = plan_pairwise_attention(problem, numbers, limit, 132, kThreads);
                const int packs = plan.pixels * packs_of(value_channels);
                if (plan.pixels > 0 && plan.taps > 0 && plan.shared_bytes <= limit &&
                    packs <= kThreads * kAttentionPacks) {
                  continue;
                }
                std::printf("no good plan for widths %d, %d, %d channels, %d layers, %d bytes, %ld of shared memory\n",
                            width, outputs, value_channels, layers, numbers.factor_bytes, long(limit));
                return false;
              }
  return true;
}

}  // namespace sa_layers::cuda
