// Softmax aggregation and its gradients against the reference.
#pragma once

#include "buffer.h"
#include "cuda/aggregation/launch.h"

namespace sa_layers::cuda {

// The reference computes the softmax first. Some logits are -inf; in every other problem all have a large offset.
template <typename T>
bool check_softmax_aggregation(const reference::Problem& p, Element element, int shift) {
  const auto problem = geometry(p);
  const int64_t pixels = int64_t(p.output_height()) * p.output_width(), taps = p.kernel[0] * p.kernel[1];
  Buffer<T> value(p.value_size(), shift), logits(p.weight_size(), shift), gradient(p.output_size(), shift);
  Buffer<T> output(p.output_size(), shift), grad_value(p.value_size(), shift), grad_logits(p.weight_size(), shift);
  Buffer<Compute<T>> max_logits(p.weight_size() / taps, shift), normalizers(p.weight_size() / taps, shift);
  for (Buffer<T>* tensor : {&value, &logits, &gradient}) tensor->randomise();
  for (Buffer<T>* tensor : {&output, &grad_value, &grad_logits}) tensor->forget();
  max_logits.forget(), normalizers.forget();
  const Compute<T> offset = pick(0, 1) * 1000;
  for (int64_t i = 0; i < p.weight_size(); ++i) {
    const bool masked = i / pixels % taps < taps / 2 && i % 3 == 0;
    if (masked)
      narrow(Compute<T>(-INFINITY), logits.data()[i]);
    else
      narrow(5 * widen(logits.data()[i]) + offset, logits.data()[i]);
  }

  Expected maxima(max_logits.size()), totals(normalizers.size()), outputs(p.output_size()), grad_values(p.value_size());
  Expected grad_weights(p.weight_size()), grad_logit(p.weight_size());
  std::vector<double> weight(p.weight_size()), mean(normalizers.size());
  const auto pixel_of = [&](int64_t w) { return w / pixels / taps * pixels + w % pixels; };
  for (double& maximum : maxima.sum) maximum = -INFINITY;
  for (int64_t w = 0; w < p.weight_size(); ++w) {
    double& maximum = maxima.sum[pixel_of(w)];
    maximum = std::max(maximum, double(widen(logits.data()[w])));
  }
  for (int64_t w = 0; w < p.weight_size(); ++w) {
    weight[w] = std::exp(widen(logits.data()[w]) - maxima.sum[pixel_of(w)]);
    totals.add(pixel_of(w), weight[w]);
  }
  for (int64_t w = 0; w < p.weight_size(); ++w) weight[w] /= totals.sum[pixel_of(w)];
  reference::for_each_product(p, [&](int64_t v, int64_t w, int64_t o) {
    const double x = v < 0 ? 0 : widen(value.data()[v]), g = widen(gradient.data()[o]);
    outputs.add(o, x * weight[w]), grad_weights.add(w, x * g);
    if (v >= 0) grad_values.add(v, weight[w] * g);
  });
  for (int64_t w = 0; w < p.weight_size(); ++w) mean[pixel_of(w)] += weight[w] * grad_weights.sum[w];
  for (int64_t w = 0; w < p.weight_size(); ++w) {
    grad_logit.sum[w] = weight[w] * (grad_weights.sum[w] - mean[pixel_of(w)]);
    grad_logit.magnitude[w] = 4 * p.channels / p.weight_channels + 1;
  }
  for (double& magnitude : outputs.magnitude) magnitude += 1;  // its weights have rounding errors too

  bool good = !launch_softmax_aggregation(problem, element, value.data(), logits.data(), output.data(),
                                          max_logits.data(), normalizers.data(), nullptr);
  // In half precision the normalizers are still float32, and so are their errors.
  good = good && agrees("softmax_aggregation", output, outputs) &&
         agrees("softmax_aggregation's max_logits", max_logits, maxima) &&
         agrees("softmax_aggregation's normalizers", normalizers, totals);
  good = good &&
         !launch_softmax_aggregation_value_gradient(problem, element, gradient.data(), logits.data(), max_logits.data(),
                                                    normalizers.data(), grad_value.data(), nullptr);
  good = good && !launch_softmax_aggregation_logits_gradient(problem, element, gradient.data(), value.data(),
                                                             logits.data(), max_logits.data(), normalizers.data(),
                                                             grad_logits.data(), nullptr);
  good = good && agrees("softmax_aggregation_value_gradient", grad_value, grad_values) &&
         agrees("softmax_aggregation_logits_gradient", grad_logits, grad_logit);

  // The sums of half the largest number overflow, their averages do not.
  if (std::is_same_v<T, __half>) return good;  // its sums are float32
  const double large = std::numeric_limits<Compute<T>>::max() / 2;
  for (int64_t i = 0; i < value.size(); ++i) narrow(Compute<T>(large), value.data()[i]);
  Expected averages(p.output_size());
  reference::for_each_product(p,
                              [&](int64_t v, int64_t w, int64_t o) { averages.add(o, v < 0 ? 0 : large * weight[w]); });
  good = good && !launch_softmax_aggregation(problem, element, value.data(), logits.data(), output.data(),
                                             max_logits.data(), normalizers.data(), nullptr);
  return good && agrees("softmax_aggregation of large numbers", output, averages);
}

}  // namespace sa_layers::cuda
