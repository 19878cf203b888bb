// The schemas of all operators. Kernels register themselves beside their source: csrc/cpu, csrc/cuda. Gradients are
// operators of their own; the Python front makes autograd of every order from them.
//
// kernel_size, stride and dilation are (vertical, horizontal); padding_mode is 'reflect' or 'zeros'.

#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(sa_layers, library) {
  library.def("cpu_capability() -> str");

  // value (N, C, H, W), weight (N, Cw, Kh * Kw, Ho * Wo) -> (N, C, Ho, Wo); channel c uses the weight c % Cw.
  library.def(
      "aggregation(Tensor value, Tensor weight, int[2] kernel_size, int[2] stride, int[2] dilation, "
      "str padding_mode) -> Tensor");
  library.def(
      "aggregation_value_gradient(Tensor grad_output, Tensor weight, SymInt height, SymInt width, int[2] kernel_size, "
      "int[2] stride, int[2] dilation, str padding_mode) -> Tensor");
  library.def(
      "aggregation_weight_gradient(Tensor grad_output, Tensor value, int weight_channels, int[2] kernel_size, "
      "int[2] stride, int[2] dilation, str padding_mode) -> Tensor");
}
