// Binding of patchwise_attention.

#include "cuda/common/binding.h"

#include <optional>
#include <string>
#include <vector>

#include "cuda/patchwise_attention/problem.h"
#include "operands/attention.h"

namespace sa_layers::cuda {

namespace {

// What shared memory and registers have no room for is refused, and what takes 64 bits to count.
int checked_size(const char* what, int64_t size, int64_t most) {
  STD_TORCH_CHECK(size <= most, "patchwise_attention has no CUDA kernel for ", size, " ", what, ", of which it takes ",
                  most);
  return int(size);
}

Tensor patchwise_attention(const Tensor& query, const Tensor& key, const Tensor& value,
                           const std::vector<Tensor>& scales, const std::vector<Tensor>& shifts,
                           const std::vector<Tensor>& weights, const std::vector<Tensor>& biases,
                           const OptionalTensor& output_scale, const OptionalTensor& output_shift,
                           const Pair& kernel_size, const std::string& relation, const Pair& stride,
                           const Pair& dilation, const std::string& padding_mode, bool allow_tf32) {
  check_maps(query, key, value);
  PatchwiseAttention problem = {};
  problem.footprint = make_footprint(query.size(2), query.size(3), kernel_size, stride, dilation, padding_mode);
  problem.relation = parse_patchwise_relation(relation);
  problem.batch = query.size(0);
  problem.relation_channels = checked_size("channels of the relation", query.size(1), INT32_MAX);
  problem.value_channels = checked_size("channels of the value", value.size(1), kPatchwiseValues);
  checked_size("taps", problem.footprint.taps(), kPatchwiseTaps);
  checked_size("pixels", problem.batch * problem.footprint.pixels(), INT32_MAX);
  checked_size("features", int64_t(problem.feature_taps()) * problem.feature_channels(), INT32_MAX);
  const int64_t weight_channels = check_patchwise_mapping({scales, shifts, weights, biases}, problem.relation,
                                                          problem.footprint.taps(), query, value);
  problem.weight_channels = checked_size("weights", weight_channels, kPatchwiseWeights);
  check_epilogue(output_scale, output_shift, query, value);
  problem.allow_tf32 = allow_tf32;

  const DeviceOf device(query);
  const Tensor queries = channels_last(query), keys = channels_last(key), values = channels_last(value);
  problem.query_step = pixel_step_of(queries), problem.key_step = pixel_step_of(keys);
  problem.value_step = pixel_step_of(values);
  const Footprint& footprint = problem.footprint;
  const std::vector<int64_t> shape{problem.batch, problem.value_channels, footprint.rows.output_size(),
                                   footprint.columns.output_size()};
  const Tensor output = torch::stable::empty(shape, query.scalar_type(), std::nullopt, query.device(), std::nullopt,
                                             torch::headeronly::MemoryFormat::ChannelsLast);

  std::vector<Tensor> parameters;  // keeps them alive until the launch
  const auto contiguous = [&](const Tensor& tensor) -> const Tensor& {
    return parameters.emplace_back(tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor));
  };
  const auto numbers = [&](const OptionalTensor& tensor) {
    return tensor ? contiguous(*tensor).const_data_ptr() : nullptr;
  };
  PatchwiseAttentionTensors tensors = {};
  tensors.query = queries.const_data_ptr(), tensors.key = keys.const_data_ptr();
  tensors.value = values.const_data_ptr(), tensors.output = output.mutable_data_ptr();
  for (int layer = 0; layer < 2; ++layer) {
    tensors.scales[layer] = numbers(scales[layer]), tensors.shifts[layer] = numbers(shifts[layer]);
    tensors.weights[layer] = layer_parameter(contiguous(weights[layer]), query);
    tensors.biases[layer] = layer_parameter(contiguous(biases[layer]), query);
  }
  tensors.output_scale = numbers(output_scale), tensors.output_shift = numbers(output_shift);
  const Element element = element_of("query", query);
  const Tensor workspace = torch::stable::empty({patchwise_workspace_bytes(problem, element)}, ScalarType::Byte,
                                                std::nullopt, query.device());
  tensors.workspace = workspace.mutable_data_ptr();
  STD_CUDA_CHECK(launch_patchwise_attention(problem, element, tensors, device.stream()));
  return output;
}

// Which implementations could compute an attention of such maps, in the order in which they are tried; float32 maps
// without TF32.
std::string patchwise_implementations(const std::string& dtype, int64_t channels, int64_t value_channels,
                                      int64_t weight_channels, const Pair& kernel_size, const std::string& relation,
                                      const Pair& stride, const Pair& dilation) {
  PatchwiseAttention problem = {};
  problem.footprint = make_footprint(kTypicalSide, kTypicalSide, kernel_size, stride, dilation, "reflect");
  problem.relation = parse_patchwise_relation(relation);
  problem.batch = 1;
  problem.relation_channels = clamp_size(channels), problem.value_channels = clamp_size(value_channels);
  problem.weight_channels = clamp_size(weight_channels);
  return patchwise_attention_implementations(problem, element_named(dtype));
}

}  // namespace

}  // namespace sa_layers::cuda

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CUDA, library) {
  library.impl("patchwise_attention", TORCH_BOX(&sa_layers::cuda::patchwise_attention));
}

STABLE_TORCH_LIBRARY_FRAGMENT(sa_layers, library) {
  library.def(
      "patchwise_attention_implementations_cuda(str dtype, int channels, int value_channels, int weight_channels, "
      "int[2] kernel_size, str relation, int[2] stride, int[2] dilation) -> str");
}

// Without a tensor argument it is registered for every device.
STABLE_TORCH_LIBRARY_IMPL(sa_layers, CompositeExplicitAutograd, library) {
  library.impl("patchwise_attention_implementations_cuda", TORCH_BOX(&sa_layers::cuda::patchwise_implementations));
}
