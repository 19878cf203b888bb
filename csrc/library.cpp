// The schemas of all operators. Kernels are registered beside their source, in csrc/cpu and csrc/cuda. Gradients are
// operators of their own; the Python front makes autograd of every order from them.
//
// kernel_size, stride and dilation are (vertical, horizontal), padding_mode is 'reflect' or 'zeros'; outputs are
// contiguous. Maps are (N, C, H, W), or (N, C, Ho, Wo) with Ho = ceil(H / stride); weights and relations are
// (N, D, Kh * Kw, Ho * Wo) with tap = kh * Kw + kw.

#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(sa_layers, library) {
  // 'avx512', 'avx2' or 'default'.
  library.def("cpu_capability() -> str");

  // Channel c of the value uses the channel c % Cw of the weight.
  library.def(
      "aggregation(Tensor value, Tensor weight, int[2] kernel_size, int[2] stride, int[2] dilation, "
      "str padding_mode) -> Tensor");
  library.def(
      "aggregation_value_gradient(Tensor grad_output, Tensor weight, SymInt height, SymInt width, int[2] kernel_size, "
      "int[2] stride, int[2] dilation, str padding_mode) -> Tensor");
  library.def(
      "aggregation_weight_gradient(Tensor grad_output, Tensor value, int weight_channels, int[2] kernel_size, "
      "int[2] stride, int[2] dilation, str padding_mode) -> Tensor");

  // The weights are a softmax of the logits over the taps; logsumexp (N, Cw, Ho * Wo) is float32, float64 for float64.
  library.def(
      "softmax_aggregation(Tensor value, Tensor logits, int[2] kernel_size, int[2] stride, int[2] dilation, "
      "str padding_mode) -> (Tensor output, Tensor logsumexp)");
  library.def(
      "softmax_aggregation_value_gradient(Tensor grad_output, Tensor logits, Tensor logsumexp, SymInt height, "
      "SymInt width, int[2] kernel_size, int[2] stride, int[2] dilation, str padding_mode) -> Tensor");
  library.def(
      "softmax_aggregation_logits_gradient(Tensor grad_output, Tensor value, Tensor logits, Tensor output, "
      "Tensor logsumexp, int[2] kernel_size, int[2] stride, int[2] dilation, str padding_mode) -> Tensor");

  // relation is 'subtraction', 'summation', 'hadamard', 'dot' or 'concatenation'.
  library.def(
      "pairwise_relation(Tensor query, Tensor key, int[2] kernel_size, str relation, int[2] stride, int[2] dilation, "
      "str padding_mode) -> Tensor");
  library.def(
      "pairwise_relation_query_gradient(Tensor grad_output, Tensor key, SymInt height, SymInt width, "
      "int[2] kernel_size, str relation, int[2] stride, int[2] dilation, str padding_mode) -> Tensor");
  library.def(
      "pairwise_relation_key_gradient(Tensor grad_output, Tensor query, SymInt height, SymInt width, "
      "int[2] kernel_size, str relation, int[2] stride, int[2] dilation, str padding_mode) -> Tensor");

  // Relation, position, mapping, softmax and aggregation in one, for inference; the output's channels lie side by side
  // in memory. The relation's features, then those of the position, plus `shift`, go through a ReLU and the mapping's
  // layers, `weights` (out, in) and `biases`, with a ReLU between. The position of a pair is query_position . (x, y, 1)
  // of the pixel plus key_position . (x, y, 1) of its neighbour, both (P, 3) with P <= 4; beyond the border it is the
  // first alone. A last ReLU follows output_scale and output_shift. Parameters are float32, float64 for float64 maps.
  // With allow_tf32 a GPU may round the factors of the mapping's products to TF32 for float32 maps; for half precision
  // it may round them to the maps' type in any case.
  library.def(
      "pairwise_attention(Tensor query, Tensor key, Tensor value, Tensor scale, Tensor shift, Tensor[] weights, "
      "Tensor[] biases, "
      "Tensor? query_position, Tensor? key_position, int[] position_size, Tensor? output_scale, Tensor? output_shift, "
      "int[2] kernel_size, str relation, int[2] stride, int[2] dilation, str padding_mode, bool allow_tf32) -> Tensor");

  // The whole of patchwise attention with frozen norms, without derivatives. Maps are channels last, as the output is.
  // Parameters are float32: scale and shift (D, R), hidden_weight (D, R, Cw), hidden_bias (Cw), weight (Cw, taps, Cw),
  // bias (taps, Cw). For the relation 'concatenation' D is 1 + taps, the query before the taps; for 'star' (D = taps)
  // and 'clique' (D = taps * taps) R is 1. An output_scale and output_shift (C) are followed by a ReLU. allow_tf32 as
  // above; parameters are float64 for float64 maps, which have a kernel on CUDA only.
  library.def(
      "patchwise_attention(Tensor query, Tensor key, Tensor value, Tensor scale, Tensor shift, Tensor hidden_weight, "
      "Tensor hidden_bias, Tensor weight, Tensor bias, Tensor? output_scale, Tensor? output_shift, int[2] kernel_size, "
      "str relation, int[2] stride, int[2] dilation, str padding_mode, bool allow_tf32) -> Tensor");

  // The implementations of the attentions on the CPU, in the order in which they are tried: a line for each, '<name>'
  // if it is eligible and '<name>: <reason>' if not. The first eligible one computes the operator. widths are those of
  // the mapping: the features of a pair, then the outputs of each layer. size is (height, width) of the maps; without
  // it, rows are taken to fill their vectors.
  library.def(
      "pairwise_attention_implementations(str dtype, int channels, int value_channels, int[] widths, int positions, "
      "int[2] kernel_size, str relation, int[2] stride, int[2] dilation, int[] size=[]) -> str");
  library.def(
      "patchwise_attention_implementations(str dtype, int channels, int value_channels, int weight_channels, "
      "int[2] kernel_size, str relation, int[2] stride, int[2] dilation) -> str");

  // For evaluation, without derivatives. Features are channels last, (N, H, W, C), and so are the outputs; an image is
  // (N, C, H, W). Coefficients are float32, float64 for float64.
  // relu(scale * features + shift)
  library.def("affine_relu(Tensor features, Tensor scale, Tensor shift) -> Tensor");
  library.def("affine_relu_(Tensor(a!) features, Tensor scale, Tensor shift) -> ()");
  // A linear layer of every pixel: features (..., C), matrix (panels, C, 16), result (..., 16 * panels), all float32.
  // The result becomes
  //     bias + matrix^T * relu(scale * features + shift), without a bias added to what it holds,
  // then relu(output_scale * result + output_shift). Without scale and shift, either pair, norm and ReLU stay away.
  // Where it pools, features are (N, H, W, C), and the maximum of every 2x2 pixels takes their place.
  library.def(
      "projection(Tensor features, Tensor matrix, Tensor? bias, Tensor? scale, Tensor? shift, Tensor? output_scale, "
      "Tensor? output_shift, Tensor(a!) result, bool pools=False) -> ()");
  // bias + weight^T * relu(scale * features + shift) into the result, (N, H, W, D); weight (C, D). For half precision
  // on CUDA, where memory bounds the layer: false, and the result left as it is, where there is no kernel.
  library.def(
      "normed_projection(Tensor features, Tensor weight, Tensor bias, Tensor scale, Tensor shift, "
      "Tensor(a!) result) -> bool");
  // The maximum of every 2x2 pixels, (N, H / 2, W / 2, C), which has a kernel on CUDA only; that of
  // relu(scale * features + shift) where both are given.
  library.def("max_pooling(Tensor features, Tensor? scale=None, Tensor? shift=None) -> Tensor");
  // relu(max over 2x2 pixels of (weight^T * pixel) + shift); weight (C, D) -> (N, H / 2, W / 2, D)
  library.def("pooled_projection(Tensor image, Tensor weight, Tensor shift) -> Tensor");
}
