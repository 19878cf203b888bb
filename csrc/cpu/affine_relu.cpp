// Bindings of affine_relu and its form in place.

#include "cpu/binding.h"
#include "operands/linear.h"

#define SA_LAYERS_KERNELS "cpu/affine_relu_kernels.inc"
#include "cpu/for_each_capability.inc"

namespace sa_layers::cpu {
namespace {

// The result may be the features themselves.
void compute(const Tensor& features, const Tensor& scale, const Tensor& shift, const Tensor& result) {
  const int64_t channels = features.size(3), pixels = features.size(0) * features.size(1) * features.size(2);
  const Tensor scales = torch::stable::contiguous(scale), shifts = torch::stable::contiguous(shift);
  dispatch("features", features, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    using C = Compute<T>;
    const int64_t grain = larger(1, 32'768 / larger(1, channels));
    torch::stable::parallel_for(0, pixels, grain, [&](int64_t begin, int64_t end) {
      SA_LAYERS_BEST(T, affine_relu, data<T>(features), data<C>(scales), data<C>(shifts), channels,
                     mutable_data<T>(result), begin, end);
    });
  });
}

Tensor affine_relu(const Tensor& features, const Tensor& scale, const Tensor& shift) {
  check_affine_relu(features, scale, shift);
  const Tensor from = torch::stable::contiguous(features),
               result = torch::stable::new_empty(features, shape_of(features));
  compute(from, scale, shift, result);
  return result;
}

void affine_relu_(const Tensor& features, const Tensor& scale, const Tensor& shift) {
  check_affine_relu(features, scale, shift);
  check_contiguous("features", features);
  compute(features, scale, shift, features);
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("affine_relu", TORCH_BOX(&sa_layers::cpu::affine_relu));
  library.impl("affine_relu_", TORCH_BOX(&sa_layers::cpu::affine_relu_));
}
