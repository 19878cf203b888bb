// The operators of the domain sa_layers, as the nodes of a graph describe them. All maps are channels last, (N, H, W,
// C), and all tensors are float32. sa_layers/export/custom_operators writes the nodes.
#pragma once

#include <vector>

#include "runtimes/tensor.h"

namespace sa_layers::runtimes {

using Inputs = std::vector<torch::stable::Tensor>;
using Integers = std::vector<int64_t>;

// A linear layer of every pixel: features, weight (D, C) and bias (D); scale and shift (C) of a norm before it, which a
// ReLU follows, if `normed`; a map that is added, if `residual`.
struct Projection {
  static constexpr const char* kName = "Projection";

  int64_t channels = 0;  // D
  int64_t normed = 0, residual = 0;

  template <typename Visitor>
  void visit(Visitor&& visitor) {
    visitor("channels", channels), visitor("normed", normed), visitor("residual", residual);
  }
  int64_t out_channels() const { return channels; }
  Integers strides() const { return {1, 1}; }
  void compute(const Inputs& inputs) const;
};

// What both attentions have. The first input holds query, key and value in its channels; they may overlap. The last
// inputs are the layers of the mapping: scale and shift of the norm, weight and bias of each. Before them are scale and
// shift of a norm of the result, which a ReLU follows, if `normed`.
struct Attention {
  std::string relation, padding_mode;
  Integers kernel_size, stride, dilation;
  Integers channels;  // of query and key, and of the value
  Integers starts;    // of query, key and value in the channels of the input
  int64_t normed = 0;

  template <typename Visitor>
  void visit(Visitor&& visitor) {
    visitor("relation", relation), visitor("padding_mode", padding_mode);
    visitor("kernel_size", kernel_size), visitor("stride", stride), visitor("dilation", dilation);
    visitor("channels", channels), visitor("starts", starts), visitor("normed", normed);
  }
  int64_t out_channels() const { return channels[1]; }
  Integers strides() const { return stride; }
};

// `positioned`: query_position and key_position, (P, 3), are the second and third input. position_size is (0, 0) for
// positions that scale with the map.
struct PairwiseAttention : Attention {
  static constexpr const char* kName = "PairwiseAttention";

  int64_t positioned = 0;
  Integers position_size;

  template <typename Visitor>
  void visit(Visitor&& visitor) {
    Attention::visit(visitor);
    visitor("positioned", positioned), visitor("position_size", position_size);
  }
  void compute(const Inputs& inputs) const;
};

struct PatchwiseAttention : Attention {
  static constexpr const char* kName = "PatchwiseAttention";

  void compute(const Inputs& inputs) const;
};

// Computes a node in the threads of its runtime, which allocates the result. A thread that waits for others may compute
// another node meanwhile.
template <typename Operator>
void run(const Operator& node, const Inputs& inputs, Host& host) {
  struct Call {
    Host* const outer = current_host;
    ~Call() { current_host = outer; }
  } const call;
  current_host = &host;
  node.compute(inputs);
}

}  // namespace sa_layers::runtimes
