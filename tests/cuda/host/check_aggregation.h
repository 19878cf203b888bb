// Aggregation and its gradients against the reference.
#pragma once

#include "buffer.h"

namespace sa_layers::cuda {

template <typename T>
bool check_aggregation(const reference::Problem& p, Element element, int shift) {
  const auto problem = geometry(p);
  Buffer<T> value(p.value_size(), shift), weight(p.weight_size(), shift), gradient(p.output_size(), shift);
  Buffer<T> output(p.output_size(), shift), grad_value(p.value_size(), shift), grad_weight(p.weight_size(), shift);
  for (Buffer<T>* tensor : {&value, &weight, &gradient}) tensor->randomise();
  for (Buffer<T>* tensor : {&output, &grad_value, &grad_weight}) tensor->forget();
  const bool launched =
      !launch_aggregation(problem, element, value.data(), weight.data(), output.data(), nullptr) &&
      !launch_aggregation_value_gradient(problem, element, gradient.data(), weight.data(), grad_value.data(),
                                         nullptr) &&
      !launch_aggregation_weight_gradient(problem, element, gradient.data(), value.data(), grad_weight.data(), nullptr);
  if (!launched) std::printf("a launch was refused\n");

  Expected outputs(p.output_size()), grad_values(p.value_size()), grad_weights(p.weight_size());
  reference::for_each_product(p, [&](int64_t v, int64_t w, int64_t o) {
    const double x = v < 0 ? 0 : widen(value.data()[v]), y = widen(weight.data()[w]), g = widen(gradient.data()[o]);
    outputs.add(o, x * y), grad_weights.add(w, x * g);
    if (v >= 0) grad_values.add(v, y * g);
  });
  return launched && agrees("aggregation", output, outputs) &&
         agrees("aggregation_value_gradient", grad_value, grad_values) &&
         agrees("aggregation_weight_gradient", grad_weight, grad_weights);
}

}  // namespace sa_layers::cuda
