// The operators as an extension of OpenVINO.

#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>

#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <openvino/frontend/onnx/extension/op.hpp>
#include <openvino/op/op.hpp>

#include "runtimes/operators.h"

namespace sa_layers::runtimes {
namespace {

class OpenvinoHost : public Host {
 public:
  explicit OpenvinoHost(ov::Tensor& result) : result_(result) {}

  int64_t threads() const override { return oneapi::tbb::this_task_arena::max_concurrency(); }
  void parallel(int64_t count, const std::function<void(int64_t)>& body) override {
    oneapi::tbb::parallel_for(int64_t{0}, count, body, oneapi::tbb::simple_partitioner());
  }
  float* allocate_result(const std::vector<int64_t>& shape) override {
    result_.set_shape({shape.begin(), shape.end()});
    return result_.data<float>();
  }

 private:
  ov::Tensor& result_;
};

// A node whose attributes are those of an operator.
template <typename Operator>
class OperatorNode : public ov::op::Op {
 public:
  static const ov::DiscreteTypeInfo& get_type_info_static() {
    static const ov::DiscreteTypeInfo info{Operator::kName, "sa_layers"};
    return info;
  }
  const ov::DiscreteTypeInfo& get_type_info() const override { return get_type_info_static(); }

  OperatorNode() = default;
  OperatorNode(const ov::OutputVector& inputs, const Operator& node) : Op(inputs), node_(node) {
    constructor_validate_and_infer_types();
  }

  bool visit_attributes(ov::AttributeVisitor& visitor) override {
    node_.visit([&](const char* name, auto& value) { visitor.on_attribute(name, value); });
    return true;
  }
  void validate_and_infer_types() override {
    for (const auto& input : inputs()) {
      NODE_VALIDATION_CHECK(this, input.get_element_type().compatible(ov::element::f32), "inputs must be float32");
    }
    const ov::PartialShape& maps = get_input_partial_shape(0);
    ov::PartialShape shape = ov::PartialShape::dynamic(4);
    if (maps.rank().is_static()) {
      NODE_VALIDATION_CHECK(this, maps.size() == 4, "the first input must be (N, H, W, C), got ", maps);
      shape[0] = maps[0];
      for (size_t axis = 0; axis < 2; ++axis) shape[axis + 1] = divided(maps[axis + 1], node_.strides()[axis]);
    }
    shape[3] = node_.out_channels();
    set_output_type(0, ov::element::f32, shape);
  }
  std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override {
    return std::make_shared<OperatorNode>(inputs, node_);
  }
  bool has_evaluate() const override { return true; }
  bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
    Inputs tensors;
    for (const ov::Tensor& input : inputs) {
      const ov::Shape shape = input.get_shape();
      tensors.emplace_back(static_cast<float*>(const_cast<void*>(input.data())), Integers(shape.begin(), shape.end()));
    }
    OpenvinoHost host(outputs[0]);
    run(node_, tensors, host);
    return true;
  }

 private:
  // The number of output pixels along an axis.
  static ov::Dimension divided(const ov::Dimension& size, int64_t stride) {
    const auto outputs = [=](int64_t pixels) { return pixels < 0 ? pixels : (pixels + stride - 1) / stride; };
    return {outputs(size.get_min_length()), outputs(size.get_max_length())};
  }

  Operator node_;
};

template <typename Operator>
void add(std::vector<ov::Extension::Ptr>& extensions) {
  using Node = OperatorNode<Operator>;
  extensions.push_back(std::make_shared<ov::OpExtension<Node>>());
  extensions.push_back(std::make_shared<ov::frontend::onnx::OpExtension<Node>>(Operator::kName, "sa_layers"));
}

std::vector<ov::Extension::Ptr> all_extensions() {
  std::vector<ov::Extension::Ptr> extensions;
  add<Projection>(extensions);
  add<PairwiseAttention>(extensions);
  add<PatchwiseAttention>(extensions);
  return extensions;
}

}  // namespace
}  // namespace sa_layers::runtimes

OPENVINO_CREATE_EXTENSIONS(sa_layers::runtimes::all_extensions())
