// Binding of pooled_projection.

#include "cpu/binding.h"
#include "operands/linear.h"
#include "cpu/share_tasks.h"

#define SA_LAYERS_KERNELS "cpu/pooled_projection_kernels.inc"
#include "cpu/for_each_capability.inc"

namespace sa_layers::cpu {
namespace {

Tensor pooled_projection(const Tensor& image, const Tensor& weight, const Tensor& shift) {
  check_pooled_projection(image, weight, shift);
  const int64_t in_channels = image.size(1), height = image.size(2), width = image.size(3), channels = shift.size(0);
  const Tensor from = torch::stable::contiguous(image);
  const Tensor weights = torch::stable::contiguous(weight), shifts = torch::stable::contiguous(shift);
  const Tensor result = torch::stable::new_empty(image, {image.size(0), height / 2, width / 2, channels});
  dispatch("image", image, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    using C = Compute<T>;
    const int64_t grain = larger(1, 16'384 / larger(1, width * in_channels));
    share_tasks(image.size(0) * (height / 2), grain, [&](int64_t begin, int64_t end) {
      SA_LAYERS_BEST(T, pooled_projection, data<T>(from), data<C>(weights), data<C>(shifts), in_channels, height, width,
                     channels, mutable_data<T>(result), begin, end);
    });
  });
  return result;
}

}  // namespace
}  // namespace sa_layers::cpu

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CPU, library) {
  library.impl("pooled_projection", TORCH_BOX(&sa_layers::cpu::pooled_projection));
}
