// Binding of pairwise_attention.

#include "cuda/common/binding.h"

#include <optional>
#include <string>
#include <vector>

#include "cuda/pairwise_attention/problem.h"
#include "operands/attention.h"

namespace sa_layers::cuda {

namespace {

MapSteps steps_of(const Tensor& map) { return {map.stride(0), map.stride(2), map.stride(3)}; }

// What shared memory and registers have no room for is refused.
int checked_width(const char* what, int64_t width, int64_t most) {
  STD_TORCH_CHECK(width <= most, "pairwise_attention has no CUDA kernel for ", what, " of ", width,
                  " channels, which must be at most ", most);
  return int(width);
}

Tensor pairwise_attention(const Tensor& query, const Tensor& key, const Tensor& value,
                          const std::vector<Tensor>& scales, const std::vector<Tensor>& shifts,
                          const std::vector<Tensor>& weights, const std::vector<Tensor>& biases,
                          const std::optional<Tensor>& query_position, const std::optional<Tensor>& key_position,
                          const Pair& position_size, const std::optional<Tensor>& output_scale,
                          const std::optional<Tensor>& output_shift, const Pair& kernel_size,
                          const std::string& relation_name, const Pair& stride, const Pair& dilation,
                          const std::string& padding_mode, bool allow_tf32) {
  check_maps(query, key, value);
  PairwiseAttention problem = {};
  problem.footprint = make_footprint(query.size(2), query.size(3), kernel_size, stride, dilation, padding_mode);
  STD_TORCH_CHECK(query.size(1) <= INT32_MAX && query.size(2) <= INT32_MAX && query.size(3) <= INT32_MAX &&
                      problem.footprint.taps() <= INT32_MAX,
                  "pairwise_attention has no CUDA kernel for sizes that take 64 bits to count");
  problem.relation = parse_relation(relation_name);
  problem.batch = query.size(0);
  problem.channels = int(query.size(1));
  problem.value_channels = checked_width("a value", value.size(1), kMostValueChannels);
  problem.positions = int(check_positions(query_position, key_position, position_size, query, kPositionWidth));
  if (query_position && !position_size.empty()) {
    problem.position_height = position_size[0], problem.position_width = position_size[1];
  }
  const MappingTensors mapping = {scales, shifts, weights, biases};
  const auto widths =
      check_pairwise_mapping(mapping, problem.relation, problem.positions, query, value, kMappingLayers);
  problem.layers = int(mapping.layers());
  for (int layer = 0; layer <= problem.layers; ++layer) {
    problem.widths[layer] = checked_width(layer == 0 ? "pairs" : "a mapping", widths[layer], kWidestLayer);
    if (layer < problem.layers) problem.weight_steps[layer] = {weights[layer].stride(0), weights[layer].stride(1)};
  }
  check_epilogue(output_scale, output_shift, query, value);
  problem.allow_tf32 = allow_tf32;

  const DeviceOf device(query);
  const Tensor queries = with_contiguous_channels(query), keys = with_contiguous_channels(key),
               values = with_contiguous_channels(value);
  problem.query_steps = steps_of(queries), problem.key_steps = steps_of(keys), problem.value_steps = steps_of(values);
  const Footprint& footprint = problem.footprint;
  const Tensor output = torch::stable::new_empty(
      query, {problem.batch, footprint.rows.output_size(), footprint.columns.output_size(), problem.value_channels});

  std::vector<Tensor> vectors;  // keeps them alive until the launch
  const auto contiguous = [&](const Tensor& tensor) -> const Tensor& {
    return vectors.emplace_back(tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor));
  };
  const auto numbers = [&](const std::optional<Tensor>& tensor) {
    return tensor ? contiguous(*tensor).const_data_ptr() : nullptr;
  };
  PairwiseAttentionTensors tensors = {};
  tensors.query = queries.const_data_ptr(), tensors.key = keys.const_data_ptr();
  tensors.value = values.const_data_ptr(), tensors.output = output.mutable_data_ptr();
  for (int layer = 0; layer < problem.layers; ++layer) {
    tensors.scales[layer] = numbers(scales[layer]), tensors.shifts[layer] = numbers(shifts[layer]);
    tensors.weights[layer] = layer_parameter(weights[layer], query);
    tensors.biases[layer] = layer_parameter(contiguous(biases[layer]), query);
  }
  tensors.query_position = numbers(query_position), tensors.key_position = numbers(key_position);
  tensors.output_scale = numbers(output_scale), tensors.output_shift = numbers(output_shift);
  const Element element = element_of("query", query);
  OptionalTensor workspace;
  if (const int64_t bytes = pairwise_workspace_bytes(problem, element, tensors)) {
    workspace = torch::stable::empty({bytes}, ScalarType::Byte, std::nullopt, query.device());
    tensors.workspace = workspace->mutable_data_ptr();
  }
  STD_CUDA_CHECK(launch_pairwise_attention(problem, element, tensors, device.stream()));
  return torch::stable::transpose(torch::stable::transpose(output, 2, 3), 1, 2);
}

// Which implementations could compute an attention of such maps, in the order in which they are tried; float32 maps
// without TF32.
std::string pairwise_implementations(const std::string& dtype, int64_t channels, int64_t value_channels,
                                     const std::vector<int64_t>& widths, int64_t positions, const Pair& kernel_size,
                                     const std::string& relation, const Pair& stride, const Pair& dilation) {
  PairwiseAttention problem = {};
  problem.footprint = make_footprint(kTypicalSide, kTypicalSide, kernel_size, stride, dilation, "reflect");
  problem.relation = parse_relation(relation);
  problem.batch = 1;
  problem.channels = clamp_size(channels), problem.value_channels = clamp_size(value_channels);
  problem.positions = clamp_size(positions);
  problem.layers = clamp_size(int64_t(widths.size()) - 1);  // too many are refused before their widths are read
  for (size_t layer = 0; layer < widths.size() && layer <= kMappingLayers; ++layer) {
    problem.widths[layer] = clamp_size(widths[layer]);
  }
  return pairwise_attention_implementations(problem, element_named(dtype));
}

}  // namespace

}  // namespace sa_layers::cuda

STABLE_TORCH_LIBRARY_IMPL(sa_layers, CUDA, library) {
  library.impl("pairwise_attention", TORCH_BOX(&sa_layers::cuda::pairwise_attention));
}

STABLE_TORCH_LIBRARY_FRAGMENT(sa_layers, library) {
  library.def(
      "pairwise_attention_implementations_cuda(str dtype, int channels, int value_channels, int[] widths, "
      "int positions, int[2] kernel_size, str relation, int[2] stride, int[2] dilation) -> str");
}

// Without a tensor argument it is registered for every device.
STABLE_TORCH_LIBRARY_IMPL(sa_layers, CompositeExplicitAutograd, library) {
  library.impl("pairwise_attention_implementations_cuda", TORCH_BOX(&sa_layers::cuda::pairwise_implementations));
}
