#include "runtimes/operators.h"

#include "checks.h"

namespace sa_layers::runtimes {
namespace {

using Tensors = std::vector<Tensor>;
using Text = std::string;
using Projected = void(const Tensor&, const Tensors&, const Tensors&, const OptionalTensor&, const OptionalTensor&,
                       const OptionalTensor&, const Tensor&);
using Pairwise = Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensors&, const Tensors&, const Tensors&,
                        const Tensors&, const OptionalTensor&, const OptionalTensor&, const Pair&,
                        const OptionalTensor&, const OptionalTensor&, const Pair&, const Text&, const Pair&,
                        const Pair&, const Text&, bool);
using Patchwise = Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensors&, const Tensors&, const Tensors&,
                         const Tensors&, const OptionalTensor&, const OptionalTensor&, const Pair&, const Text&,
                         const Pair&, const Pair&, const Text&, bool);

template <typename Function>
Function* binding(const char* name) {
  return std::any_cast<Function*>(registered_operators().at(name));
}

// The inputs of a node one after another.
class Reader {
 public:
  explicit Reader(const Inputs& inputs) : inputs_(inputs) {}

  const Tensor& next() {
    STD_TORCH_CHECK(next_ < inputs_.size(), "the node must have more inputs, got ", inputs_.size());
    return inputs_[next_++];
  }
  OptionalTensor next_if(int64_t given) { return given ? OptionalTensor(next()) : std::nullopt; }
  size_t rest() const { return inputs_.size() - next_; }

 private:
  const Inputs& inputs_;
  size_t next_ = 0;
};

struct Mapping {
  Tensors scales, shifts, weights, biases;

  explicit Mapping(Reader& reader) {
    STD_TORCH_CHECK(reader.rest() % 4 == 0, "every layer of the mapping must have four inputs, got ", reader.rest());
    while (reader.rest() > 0) {
      for (Tensors* of_layers : {&scales, &shifts, &weights, &biases}) of_layers->push_back(reader.next());
    }
  }
};

// Query, key and value, (N, C, H, W).
Tensors split(const Tensor& maps, const Attention& node) {
  check_dims("the input", maps, 4);
  const std::string text = joined(shape_text(node.starts), " and ", shape_text(node.channels));
  STD_TORCH_CHECK(node.starts.size() == 3 && node.channels.size() == 2, "starts and channels must be three and two ",
                  "numbers, got ", text);
  Tensors parts;
  for (size_t i = 0; i < 3; ++i) {
    const int64_t start = node.starts[i], channels = node.channels[i / 2];
    STD_TORCH_CHECK(start >= 0 && channels > 0 && start <= maps.size(3) - channels, "starts and channels must be in ",
                    maps.size(3), " channels, got ", text);
    parts.emplace_back(maps.data() + start, Integers{maps.size(0), channels, maps.size(1), maps.size(2)},
                       Integers{maps.stride(0), 1, maps.stride(1), maps.stride(2)});
  }
  return parts;
}

}  // namespace

void Projection::compute(const Inputs& inputs) const {
  Reader reader(inputs);
  const Tensor &features = reader.next(), &weight = reader.next(), &bias = reader.next();
  const OptionalTensor scale = reader.next_if(normed), shift = reader.next_if(normed), added = reader.next_if(residual);
  check_dims("features", features, 4);
  const Integers shape{features.size(0), features.size(1), features.size(2), channels};
  const Tensor result(current_host->allocate_result(shape), shape);
  binding<Projected>("linear_forward")(features, {weight}, {bias}, scale, shift, added, result);
}

void PairwiseAttention::compute(const Inputs& inputs) const {
  Reader reader(inputs);
  const Tensors maps = split(reader.next(), *this);
  const OptionalTensor query_position = reader.next_if(positioned), key_position = reader.next_if(positioned);
  const OptionalTensor scale = reader.next_if(normed), shift = reader.next_if(normed);
  const Mapping mapping(reader);
  const Pair size = position_size == Integers{0, 0} ? Pair{} : position_size;
  binding<Pairwise>("pairwise_attention")(maps[0], maps[1], maps[2], mapping.scales, mapping.shifts, mapping.weights,
                                          mapping.biases, query_position, key_position, size, scale, shift, kernel_size,
                                          relation, stride, dilation, padding_mode, false);
}

void PatchwiseAttention::compute(const Inputs& inputs) const {
  Reader reader(inputs);
  const Tensors maps = split(reader.next(), *this);
  const OptionalTensor scale = reader.next_if(normed), shift = reader.next_if(normed);
  const Mapping mapping(reader);
  binding<Patchwise>("patchwise_attention")(maps[0], maps[1], maps[2], mapping.scales, mapping.shifts, mapping.weights,
                                            mapping.biases, scale, shift, kernel_size, relation, stride, dilation,
                                            padding_mode, false);
}

}  // namespace sa_layers::runtimes
