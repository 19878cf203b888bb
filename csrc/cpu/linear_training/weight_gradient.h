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

constexpr int64_t kMaxOutputs = 42 * 16;  // whose packed gradients fit the second-level cache
static_assert(kBlockRows <= kLanes<float> && kMaxOutputs % kBlockRows == 0);

// Packs the gradients of some outputs of some pixels into TransposedRows, and adds them to the sums unless these are
// null. A store writes a few lanes too many; the next one overwrites them.
inline void pack_gradients(const PixelRows& grad, int64_t pixel, int64_t count, int64_t output, int64_t outputs,
                           float* to, double* sums) {
  const float* from = grad.data + pixel * grad.stride + output;
  for (int64_t first = 0; first < outputs; first += kBlockRows, to += TransposedRows::kBlock) {
    Vector<float> sum = {};
    const auto pack = [&](auto lanes) ALWAYS_INLINE_LAMBDA {
      for (int64_t i = 0; i < count; ++i) {
        const Vector<float> row = load(from + i * grad.stride + first, lanes);
        store(to + i * kBlockRows, row);
        sum += row;
      }
    };
    if (first + kLanes<float> <= outputs) {
      pack(AllLanes{});
    } else {
      pack(SomeLanes{0, outputs - first});
    }
    if (sums == nullptr) continue;
    for (int64_t i = 0; i < min(kBlockRows, outputs - first); ++i) sums[first + i] += sum[i];
  }
}

// Packs 16 channels of some pixels, after the norm and the ReLU: to[pixel * kPanelColumns + channel].
inline void pack_channels(const Activations& activations, int64_t pixel, int64_t count, int64_t channel,
                          int64_t channels, float* to) {
  const bool normalises = activations.scale != nullptr;
  const float* from = activations.pixels + pixel * activations.stride + channel;
  for (int64_t c = 0; c < kPanelColumns; c += kLanes<float>) {
    const auto pack = [&](auto lanes) ALWAYS_INLINE_LAMBDA {
      if (normalises) {
        const Vector<float> scale = load(activations.scale + channel + c, lanes);
        const Vector<float> shift = load(activations.shift + channel + c, lanes);
        for (int64_t i = 0; i < count; ++i) {
          const Vector<float> features = load(from + i * activations.stride + c, lanes);
          store(to + i * kPanelColumns + c, relu(scale * features + shift));
        }
      } else {
        for (int64_t i = 0; i < count; ++i) {
          store(to + i * kPanelColumns + c, load(from + i * activations.stride + c, lanes));
        }
      }
    };
    if (c + kLanes<float> <= channels) {
      pack(AllLanes{});
    } else {
      pack(SomeLanes{0, max(0, channels - c)});
    }
  }
}

// Computes the tasks begin <= task < end; a task is a band of pixels times a part of the panels of channels.
template <typename T>
void weight_gradient(const WeightGradient& problem, int64_t begin, int64_t end) {
  const int64_t max_outputs = min(kMaxOutputs, problem.outputs);
  const Scratch<float, 4096> gradients(ceil_div(max_outputs, kBlockRows) * TransposedRows::kBlock + kLanes<float>);
  const Scratch<float, 4096> features(kBlockGroups * kDepth * kPanelColumns);
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
        pack_gradients(problem.grad, pixel, depth, output, outputs, gradients.data(),
                       bias_sums ? bias_sums + output : nullptr);
        for (int64_t panel = first_panel; panel < last_panel; panel += kBlockGroups) {
          const int64_t panels = min(kBlockGroups, last_panel - panel);
          for (int64_t p = 0; p < panels; ++p) {
            const int64_t channel = (panel + p) * kPanelColumns;
            pack_channels(problem.activations, pixel, depth, channel, problem.channels - channel,
                          features.data() + p * depth * kPanelColumns);
          }
          for (int64_t row = 0; row < outputs; row += kBlockRows) {
            float* const to = sums + (output + row) * problem.sums_stride + panel * kPanelColumns;
            const Product product{gradients.data() + row / kBlockRows * TransposedRows::kBlock,
                                  min(kBlockRows, outputs - row),
                                  depth,
                                  features.data(),
                                  kPanelColumns,
                                  depth * kPanelColumns,
                                  step == 0 ? zeros : to,
                                  step == 0 ? 0 : problem.sums_stride,
                                  to,
                                  problem.sums_stride};
            multiply<TransposedRows, 1>(product, panels);
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
