// The schemas of all operators, except the lists of CUDA implementations: their schemas are beside the CUDA bindings of
// the attentions. Kernels are registered beside their source, in csrc/cpu and csrc/cuda. Gradients are operators of
// their own, from which sa_layers.ops makes derivatives of any order.
//
// kernel_size, stride and dilation are (vertical, horizontal); padding_mode is 'reflect' or 'zeros'. Outputs are
// contiguous unless a comment says otherwise. Maps are (N, C, H, W) or (N, C, Ho, Wo), with Ho = ceil(H / stride).
// Weights and relations are (N, D, Kh * Kw, Ho * Wo), with tap = kh * Kw + kw.

#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(sa_layers, library) {
  // 'avx512', 'avx2' or 'default'.
  library.def("cpu_capability() -> str");

  // Channel c of the value uses the channel c % Cw of the weight with groups 'interleaved', and c / (C / Cw) with
  // 'contiguous'. Here and in pairwise relations, padding_mode may also be 'clamp'.
  library.def(
      "aggregation(Tensor value, Tensor weight, int[2] kernel_size, int[2] stride, int[2] dilation, "
      "str padding_mode, str groups) -> Tensor");
  library.def(
      "aggregation_value_gradient(Tensor grad_output, Tensor weight, SymInt height, SymInt width, int[2] kernel_size, "
      "int[2] stride, int[2] dilation, str padding_mode, str groups) -> Tensor");
  library.def(
      "aggregation_weight_gradient(Tensor grad_output, Tensor value, int weight_channels, int[2] kernel_size, "
      "int[2] stride, int[2] dilation, str padding_mode, str groups) -> Tensor");

  // The weights are a softmax of the logits over the taps. max_logits and normalizers (N, Cw, Ho * Wo), the maximum
  // over the taps and the sum of exp(logit - maximum), are float32, or float64 for float64.
  library.def(
      "softmax_aggregation(Tensor value, Tensor logits, int[2] kernel_size, int[2] stride, int[2] dilation, "
      "str padding_mode, str groups) -> (Tensor output, Tensor max_logits, Tensor normalizers)");
  library.def(
      "softmax_aggregation_value_gradient(Tensor grad_output, Tensor logits, Tensor max_logits, Tensor normalizers, "
      "SymInt height, SymInt width, int[2] kernel_size, int[2] stride, int[2] dilation, str padding_mode, str groups) "
      "-> Tensor");
  library.def(
      "softmax_aggregation_logits_gradient(Tensor grad_output, Tensor value, Tensor logits, Tensor max_logits, "
      "Tensor normalizers, int[2] kernel_size, int[2] stride, int[2] dilation, str padding_mode, str groups) -> "
      "Tensor");

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

  // Pairwise attention in one pass, for inference: relation, position, mapping, softmax and aggregation. The output is
  // channels last. The features of a pair, those of its relation and then those of its position, go through the layers
  // of the mapping, each a scale, a shift, a ReLU and a linear layer, `weights` (out, in) and `biases`. The position
  // features are query_position . (x, y, 1) of the pixel plus key_position . (x, y, 1) of its neighbour, both (P, 3)
  // with P <= 4; for padded zeros only the former. output_scale and output_shift are followed by a ReLU.
  // Weights and biases have the dtype of the maps or, as all other parameters, that of accumulation: float32, or
  // float64 for float64 maps. With allow_tf32 a GPU may round the factors of the mapping's products to TF32 for float32
  // maps; for half precision it may always round them to the dtype of the maps.
  library.def(
      "pairwise_attention(Tensor query, Tensor key, Tensor value, Tensor[] scales, Tensor[] shifts, Tensor[] weights, "
      "Tensor[] biases, "
      "Tensor? query_position, Tensor? key_position, int[] position_size, Tensor? output_scale, Tensor? output_shift, "
      "int[2] kernel_size, str relation, int[2] stride, int[2] dilation, str padding_mode, bool allow_tf32) -> Tensor");

  // Patchwise attention in one pass, with frozen norms, for inference. Maps and output are channels last. The mapping
  // has two layers, as above: from the F features of a footprint to Cw hidden channels to Cw * taps weights, the taps
  // within a channel. F is R + R * taps for the relation 'concatenation', the query before the taps within each channel
  // of the key; taps for 'star'; and taps * taps for 'clique'. output_scale and output_shift (C) are followed by a
  // ReLU. float64 maps have a kernel on CUDA only.
  library.def(
      "patchwise_attention(Tensor query, Tensor key, Tensor value, Tensor[] scales, Tensor[] shifts, Tensor[] weights, "
      "Tensor[] biases, Tensor? output_scale, Tensor? output_shift, int[2] kernel_size, "
      "str relation, int[2] stride, int[2] dilation, str padding_mode, bool allow_tf32) -> Tensor");

  // The implementations of the attentions on the CPU, in the order in which they are tried: a line for each, '<name>'
  // if it is eligible and '<name>: <reason>' if not. The first eligible one computes the operator. widths are those of
  // the mapping: the features of a pair, then the outputs of each layer. size is (height, width) of the maps; if it
  // is omitted, rows are assumed to fill whole vectors.
  library.def(
      "pairwise_attention_implementations(str dtype, int channels, int value_channels, int[] widths, int positions, "
      "int[2] kernel_size, str relation, int[2] stride, int[2] dilation, int[] size=[]) -> str");
  library.def(
      "patchwise_attention_implementations(str dtype, int channels, int value_channels, int weight_channels, "
      "int[2] kernel_size, str relation, int[2] stride, int[2] dilation) -> str");

  // Linear layers, norms and poolings of evaluation, without derivatives. Features and outputs are channels last,
  // (N, H, W, C); an image is (N, C, H, W). Coefficients are float32, or float64 for float64 features.
  // relu(scale * features + shift)
  library.def("affine_relu(Tensor features, Tensor scale, Tensor shift) -> Tensor");
  library.def("affine_relu_(Tensor(a!) features, Tensor scale, Tensor shift) -> ()");
  // Linear layers of every pixel, one after the other in the result's channels: features (..., C), weights (D, C) each,
  // result (..., channels of all layers, rounded up to 16), all float32:
  //     result = biases + weights * relu(scale * features + shift), or result += ... without biases,
  // then relu(output_scale * result + output_shift). Without scale and shift, or without output_scale and output_shift,
  // the norm and its ReLU are skipped. If it pools, features are (N, H, W, C) and go through 2x2 max-pooling first.
  library.def(
      "projection(Tensor features, Tensor[] weights, Tensor[] biases, Tensor? scale, Tensor? shift, "
      "Tensor? output_scale, Tensor? output_shift, Tensor(a!) result, bool pools=False) -> ()");
  // result = bias + weight^T * relu(scale * features + shift), (N, H, W, D); weight (C, D). For half precision on CUDA,
  // where the layer is bound by memory. Returns false, and leaves the result unchanged, if no kernel is eligible.
  library.def(
      "normed_projection(Tensor features, Tensor weight, Tensor bias, Tensor scale, Tensor shift, "
      "Tensor(a!) result) -> bool");
  // 2x2 max-pooling, (N, H / 2, W / 2, C), of the features or, with scale and shift, of relu(scale * features + shift).
  library.def("max_pooling(Tensor features, Tensor? scale=None, Tensor? shift=None) -> Tensor");
  // relu(max over 2x2 pixels of (weight^T * pixel) + shift); weight (C, D) -> (N, H / 2, W / 2, D)
  library.def("pooled_projection(Tensor image, Tensor weight, Tensor shift) -> Tensor");

  // Linear layers in training. Maps are (N, H, W, C), float32, and may be slices of a wider map's channels. Layers of
  // the same C channels follow each other: weights (D_i, C) or (D_i, C, 1, 1), D = sum of all D_i. An activation is
  // relu(scale * pixels + shift), or the pixels themselves without scale and shift.
  // result (N, H, W, D) = residual + biases + weights * activation; biases are one for each layer, or none.
  library.def(
      "linear_forward(Tensor pixels, Tensor[] weights, Tensor[] biases, Tensor? scale, Tensor? shift, "
      "Tensor? residual, Tensor(a!) result) -> ()");
  // result (N, H, W, C) = weights^T * grad, with scale and shift where scale * pixels + shift > 0 and otherwise 0. Then
  // sums (2, C) float64 are those over the pixels of the result and of result * (pixels - mean); mean is (C,) float64.
  // Without scale and shift sums are (2, 0).
  library.def(
      "linear_backward_input(Tensor grad, Tensor[] weights, Tensor? pixels, Tensor? scale, Tensor? shift, "
      "Tensor? mean, Tensor(a!) result) -> Tensor sums");
  // weight (D, C) = sum over the pixels of grad * activation, bias (D,) that of grad, or (0,) if it is not wanted.
  library.def(
      "linear_backward_weight(Tensor grad, Tensor pixels, Tensor? scale, Tensor? shift, bool with_bias) -> "
      "(Tensor weight, Tensor bias)");

  // Pairwise attention in training. Maps, outputs and gradients are (N, H, W, C) or (N, Ho, Wo, C) with contiguous
  // channels, slices of a wider map too. mapping holds scale1, shift1, mean1, center, weight1 (R', D), scale2, shift2
  // and weight2 (Cw, R'); see sa_layers/ops/pairwise_training.py. Sums are float64.
#define SA_LAYERS_PAIRS                                                                     \
  "Tensor? query_position, Tensor? key_position, int[] position_size, int[2] kernel_size, " \
  "str relation, int[2] stride, int[2] dilation, str padding_mode"
  // The mean and the biased variance (2, D) of the features of all pairs.
  library.def("pairwise_training_statistics(Tensor query, Tensor key, " SA_LAYERS_PAIRS ") -> Tensor");
  // The mean (D) and the biased covariance (D, D) of relu(scale1 * features + shift1).
  library.def("pairwise_training_moments(Tensor query, Tensor key, Tensor scale1, Tensor shift1, " SA_LAYERS_PAIRS
              ") -> (Tensor mean, Tensor covariance)");
  library.def("pairwise_training_forward(Tensor query, Tensor key, Tensor value, Tensor[] mapping, " SA_LAYERS_PAIRS
              ") -> (Tensor output, Tensor logsumexp)");
  // Overwrites the gradients of the maps.
  library.def(
      "pairwise_training_backward(Tensor grad_output, Tensor query, Tensor key, Tensor value, Tensor output, "
      "Tensor logsumexp, Tensor[] mapping, " SA_LAYERS_PAIRS
      ", Tensor(a!) grad_query, Tensor(b!) grad_key, Tensor(c!) grad_value) -> (Tensor hidden, Tensor products, "
      "Tensor weight2, Tensor features, Tensor position)");
  // Both add to the gradients of the maps.
  library.def(
      "pairwise_training_correction(Tensor query, Tensor key, Tensor[] mapping, Tensor matrix, Tensor "
      "offset, " SA_LAYERS_PAIRS ", Tensor(a!) grad_query, Tensor(b!) grad_key) -> (Tensor features, Tensor position)");
  library.def("pairwise_training_norm_backward(Tensor query, Tensor key, Tensor mean1, Tensor factors, " SA_LAYERS_PAIRS
              ", Tensor(a!) grad_query, Tensor(b!) grad_key) -> Tensor");
  // Norms and the poolings after them in training. Maps are channels last, (..., C), or (N, H, W, C) where they are
  // pooled; slices of a wider map's channels are read and written in place. scale and shift are as above; mean and
  // factors, and all results, are float64. Sums are over all pixels.
  // (2, C): mean and biased variance
  library.def("channel_statistics(Tensor pixels) -> Tensor");
  // grad = scale * pixels + shift <= 0 ? 0 : grad. Returns (2, C): the sums of grad and of grad * (pixels - mean).
  library.def("mask_and_sum(Tensor(a!) grad, Tensor pixels, Tensor scale, Tensor shift, Tensor mean) -> Tensor");
  // out = residual + k1 * grad + k2 * pixels + k3; factors are k1, k2, k3, (3, C), or only k1, (1, C). out may be grad
  // or residual.
  library.def("norm_backward(Tensor grad, Tensor pixels, Tensor factors, Tensor(a!) out, Tensor? residual=None) -> ()");
  // With d the gradient that arrives at scale * pixels + shift through 2x2 max-pooling and a ReLU: the sums of d and of
  // d * (pixels - mean), (2, C), and out = k1 * d + k2 * pixels + k3. Without factors out = d, without scale and shift
  // there is only the pooling.
  library.def("max_pooling_sums(Tensor grad_pooled, Tensor pixels, Tensor scale, Tensor shift, Tensor mean) -> Tensor");
  library.def(
      "max_pooling_backward(Tensor grad_pooled, Tensor pixels, Tensor? scale, Tensor? shift, Tensor? factors, "
      "Tensor(a!) out) -> ()");
  // The stem of an image (N, c, H, W) with c <= 8: mean (c) and biased covariance (c, c) of the image's channels; and,
  // with d the gradient that arrives at weight^T * pixel + shift, weight (c, C), the sums of d and of
  // d * (pixel - mean), (1 + c, C).
  library.def("image_moments(Tensor image) -> (Tensor mean, Tensor covariance)");
  library.def("stem_backward(Tensor grad_pooled, Tensor image, Tensor weight, Tensor shift, Tensor mean) -> Tensor");

  // Patchwise attention in training, for the relation 'concatenation'. Maps are (N, H, W, C), channels last, and may be
  // slices of the channels of wider maps. Parameters are in the compute dtype: float32, or float64 for float64 maps.
  // z = weight * relu(scale * features + shift), (N, Ho, Wo, Cw) in the compute dtype; weight (Cw, R + R * taps)
  library.def(
      "patchwise_hidden(Tensor query, Tensor key, Tensor scale, Tensor shift, Tensor weight, int[2] kernel_size, "
      "int[2] stride, int[2] dilation, str padding_mode) -> Tensor");
  // Overwrites the gradients of query and key, the former only at the centres of footprints. Returns the gradient of
  // the weight, and (2, F): the sums of g and of g * (feature - mean), where g is the gradient of scale * feature +
  // shift; in float64.
  library.def(
      "patchwise_hidden_backward(Tensor grad_z, Tensor query, Tensor key, Tensor scale, Tensor shift, Tensor mean, "
      "Tensor weight, Tensor(a!) grad_query, Tensor(b!) grad_key, int[2] kernel_size, int[2] stride, int[2] dilation, "
      "str padding_mode) -> (Tensor grad_weight, Tensor features)");
  // output = sum over taps of (bias + weight * relu(scale * z + shift)) * value; weight (Cw * taps, Cw)
  library.def(
      "patchwise_weighted_sum(Tensor z, Tensor value, Tensor scale, Tensor shift, Tensor weight, Tensor bias, "
      "int[2] kernel_size, int[2] stride, int[2] dilation, str padding_mode) -> Tensor");
  // Overwrites the gradient of the value. Returns that of relu(scale * z + shift), in the compute dtype, and those of
  // weight and bias, in float64.
  library.def(
      "patchwise_weighted_sum_backward(Tensor grad_output, Tensor z, Tensor value, Tensor scale, Tensor shift, "
      "Tensor weight, Tensor bias, Tensor(a!) grad_value, int[2] kernel_size, int[2] stride, int[2] dilation, "
      "str padding_mode) -> (Tensor grad_hidden, Tensor grad_weight, Tensor grad_bias)");
  // The norm of the features in closed form, for query and key, of which taps j read column w columns[j, w] times: sums
  // over images and w of columns[j, w] * (pixel - shift), and of its square, (2, H, J, R); and gradient -= constant +
  // slope * (pixel - centre), where constant and slope are the sums over j of columns[j, w] * coefficients[:, h, j].
  // All but the maps are float64; shifts and centres are (2, R).
  library.def(
      "patchwise_row_sums(Tensor query, Tensor key, Tensor shifts, Tensor query_columns, Tensor key_columns) -> "
      "(Tensor query_sums, Tensor key_sums)");
  library.def(
      "patchwise_subtract_norm(Tensor query, Tensor key, Tensor centres, Tensor query_columns, Tensor key_columns, "
      "Tensor query_coefficients, Tensor key_coefficients, Tensor(a!) grad_query, Tensor(b!) grad_key) -> ()");

  // The numbers of each channel between the passes of a norm in training, all float64 but for `coefficients`, float32.
  // statistics (2, C) are mean and biased variance. folded (4, C) is scale, shift, mean and 1 / sqrt(variance + eps);
  // coefficients (2, C) is its first two rows, rounded.
  library.def(
      "norm_scale_and_shift(Tensor statistics, Tensor? weight, Tensor? bias, float eps) -> "
      "(Tensor folded, Tensor coefficients)");
  // running = (1 - factor) * running + factor * statistics, with the unbiased variance of `count` numbers.
  library.def(
      "norm_track(Tensor statistics, Tensor(a!) running_mean, Tensor(b!) running_var, float factor, float count) -> "
      "()");
  // sums (2, C) are those of mask_and_sum, over this process; totals those over all processes, by default the same.
  // gradients (2, C) are those of weight and bias. The gradient of the norm's input is
  // scale * (grad - means[0] - means[1] * (input - mean)) = k1 * grad + k2 * input + k3, factors (3, C). With count 0
  // the statistics are frozen: means are (0, C), factors (1, C).
  library.def(
      "norm_gradient(Tensor sums, Tensor? totals, Tensor folded, float count) -> "
      "(Tensor gradients, Tensor means, Tensor factors)");
}
