// The gradient of the weights of a linear layer, a product whose depth is the pixels. Some pixels at a time are packed:
// their gradients, and their features after norm and ReLU.
#if defined(SA_LAYERS_CPU_LINEAR_TRAINING_WEIGHT_GRADIENT_H) == defined(SA_LAYERS_TARGET_TOGGLE)
#ifdef SA_LAYERS_CPU_LINEAR_TRAINING_WEIGHT_GRADIENT_H
#undef SA_LAYERS_CPU_LINEAR_TRAINING_WEIGHT_GRADIENT_H
#else
#define SA_LAYERS_CPU_LINEAR_TRAINING_WEIGHT_GRADIENT_H
#endif

#include "cpu/linear/packing.h"
#include "cpu/linear_training/double_sums.h"
#include "cpu/linear_training/problem.h"

SA_LAYERS_BEGIN_TARGET();
namespace sa_layers::cpu::SA_LAYERS_NAMESPACE {

constexpr int64_t kMaxOutputs = 42 * 8;  // whose packed gradients fit the second-level cache
static_assert(kBlockRows <= kLanes<float> && kMaxOutputs % kBlockRows == 0);
constexpr int64_t kChannelPanels = 16;                               // that are packed together
constexpr int64_t kChannelPanelSize = (kDepth + 1) * kPanelColumns;  // no power of two, as TransposedRows::kBlock

// Packs the gradients of some outputs of some pixels into TransposedRows, and adds them to `sums`, a vector for each
// block.
inline void pack_gradients(const PixelRows& grad, int64_t pixel, int64_t count, int64_t output, int64_t outputs,
                           float* to, float* sums) {
  constexpr int kPixels = 4;  // which are read together, so that the sums are read and written less often
  const float* from = grad.data + pixel * grad.stride + output;
  const auto pack = [=](const float* row, int64_t pixels, float* packed, float* sum, auto lanes) ALWAYS_INLINE_LAMBDA {
    Vector<float> rows[kPixels] = {};
#pragma GCC unroll 4
    for (int i = 0; i < kPixels; ++i) {
      if (i >= pixels) continue;
      rows[i] = load(row + i * grad.stride, lanes);
      store(packed + i * kLanes<float>, rows[i]);
    }
    store(sum, load(sum) + ((rows[0] + rows[1]) + (rows[2] + rows[3])));
  };
  const auto pack_pixels = [=](int64_t i, int64_t pixels) ALWAYS_INLINE_LAMBDA {
    const float* row = from + i * grad.stride;
    float *packed = to + TransposedRows::left(0, i), *sum = sums;
    int64_t first = 0;
    for (; first + kLanes<float> <= outputs; first += kBlockRows) {
      pack(row + first, pixels, packed, sum, AllLanes{});
      packed += TransposedRows::kBlock, sum += kLanes<float>;
    }
    for (; first < outputs; first += kBlockRows) {
      pack(row + first, pixels, packed, sum, SomeLanes{0, outputs - first});
      packed += TransposedRows::kBlock, sum += kLanes<float>;
    }
  };
  int64_t i = 0;
  for (; i + kPixels <= count; i += kPixels) pack_pixels(i, kPixels);
  if (i < count) pack_pixels(i, count - i);
}

// Packs some channels of some pixels, after the norm and the ReLU, kChannelPanelSize for every 16 channels:
// to[pixel * kPanelColumns + channel].
inline void pack_channels(const Activations& activations, int64_t pixel, int64_t count, int64_t channel,
                          int64_t channels, float* to) {
  const bool normalises = activations.scale != nullptr;
  const float* from = activations.pixels + pixel * activations.stride + channel;
  const float *scale = activations.scale + channel, *shift = activations.shift + channel;
  for (int64_t i = 0; i < count; ++i, from += activations.stride, to += kPanelColumns) {
    for_each_vector(channels, [=](int64_t c, auto lanes) ALWAYS_INLINE_LAMBDA {
      Vector<float> features = load(from + c, lanes);
      if (normalises) features = relu(load(scale + c, lanes) * features + load(shift + c, lanes));
      store(to + c / kPanelColumns * kChannelPanelSize + c % kPanelColumns, features);
    });
  }
}

// Adds the gradients of the bias of some outputs, of which `sums` has a vector for each block, and clears `sums`.
inline void add_bias_gradients(float* sums, int64_t outputs, double* to) {
  for (int64_t output = 0; output < outputs; ++output) {
    float* const sum = sums + output / kBlockRows * kLanes<float> + output % kBlockRows;
    if (to != nullptr) to[output] += *sum;
    *sum = 0;
  }
}

// Computes the tasks begin <= task < end; a task is a band of pixels times a part of the panels of channels.
template <typename T>
void weight_gradient(const WeightGradient& problem, int64_t begin, int64_t end) {
  const int64_t max_outputs = min(kMaxOutputs, problem.outputs);
  const Scratch<float, 4096> gradients(ceil_div(max_outputs, kBlockRows) * TransposedRows::kBlock);
  const Scratch<float, 4096> features(kChannelPanels * kChannelPanelSize);
  const Scratch<float> vector_sums(ceil_div(max_outputs, kBlockRows) * kLanes<float>);
  for (int64_t i = 0; i < ceil_div(max_outputs, kBlockRows) * kLanes<float>; ++i) vector_sums.data()[i] = 0;
  const float zeros[kBlockGroups * kPanelColumns] = {};
  for (int64_t task = begin; task < end; ++task) {
    const int64_t band = task / problem.panel_parts, part = task % problem.panel_parts;
    const int64_t first_panel = problem.panels * part / problem.panel_parts;
    const int64_t last_panel = problem.panels * (part + 1) / problem.panel_parts;
    const int64_t first_pixel = band * problem.band_pixels;
    const int64_t pixels = min(problem.band_pixels, problem.pixels - first_pixel), steps = ceil_div(pixels, kDepth);
    float* const sums = problem.sums + band * problem.outputs * problem.sums_stride;
    double* bias_sums = part == 0 && problem.bias_sums ? problem.bias_sums + band * problem.outputs : nullptr;
    for (int64_t i = 0; bias_sums != nullptr && i < problem.outputs; ++i) bias_sums[i] = 0;
    for (int64_t step = 0; step < steps; ++step) {
      const int64_t pixel = first_pixel + pixels * step / steps;
      const int64_t depth = first_pixel + pixels * (step + 1) / steps - pixel;
      for (int64_t output = 0; output < problem.outputs; output += max_outputs) {
        const int64_t outputs = min(max_outputs, problem.outputs - output);
        pack_gradients(problem.grad, pixel, depth, output, outputs, gradients.data(), vector_sums.data());
        add_bias_gradients(vector_sums.data(), outputs, bias_sums ? bias_sums + output : nullptr);
        for (int64_t group = first_panel; group < last_panel; group += kChannelPanels) {
          const int64_t group_end = min(group + kChannelPanels, last_panel), channel = group * kPanelColumns;
          const int64_t channels = min(group_end * kPanelColumns, problem.channels) - channel;
          pack_channels(problem.activations, pixel, depth, channel, channels, features.data());
          for (int64_t panel = group; panel < group_end; panel += kBlockGroups) {
            for (int64_t row = 0; row < outputs; row += kBlockRows) {
              float* const to = sums + (output + row) * problem.sums_stride + panel * kPanelColumns;
              const Product product{gradients.data() + row / kBlockRows * TransposedRows::kBlock,
                                    min(kBlockRows, outputs - row),
                                    depth,
                                    features.data() + (panel - group) * kChannelPanelSize,
                                    kPanelColumns,
                                    kChannelPanelSize,
                                    step == 0 ? zeros : to,
                                    step == 0 ? 0 : problem.sums_stride,
                                    to,
                                    problem.sums_stride};
              multiply<TransposedRows, 1>(product, min(kBlockGroups, group_end - panel));
            }
          }
        }
      }
    }
  }
}

// Adds up the bands of the outputs begin <= output < end.
template <typename T>
void add_bands(const WeightGradient& problem, float* result, int64_t begin, int64_t end) {
  const Scratch<double> totals(problem.panels * kPanelColumns);
  for (int64_t output = begin; output < end; ++output) {
    for (int64_t c = 0; c < problem.sums_stride; c += kLanes<double>) {
      Vector<double> total = {};
      for (int64_t band = 0; band < problem.bands(); ++band) {
        total += load_as_doubles(problem.sums + (band * problem.outputs + output) * problem.sums_stride + c);
      }
      store(totals.data() + c, total);
    }
    float* const to = result + output * problem.channels;
    for (int64_t c = 0; c < problem.channels; ++c) to[c] = static_cast<float>(totals.data()[c]);
  }
}

}  // namespace sa_layers::cpu::SA_LAYERS_NAMESPACE
SA_LAYERS_END_TARGET();

#endif  // SA_LAYERS_CPU_LINEAR_TRAINING_WEIGHT_GRADIENT_H
