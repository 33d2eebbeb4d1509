#include "openvino_graph.hpp"

#include <openvino/op/add.hpp>
#include <openvino/op/clamp.hpp>
#include <openvino/op/constant.hpp>
#include <openvino/op/convert.hpp>
#include <openvino/op/multiply.hpp>

#include <set>
#include <string>

namespace derain {
namespace {

using Node = std::shared_ptr<ov::Node>;

std::vector<Node> of_type(const ov::Model &model, const std::string &name) {
    std::vector<Node> found;
    for (const Node &node : model.get_ordered_ops()) {
        if (node->get_type_name() == name) found.push_back(node);
    }
    return found;
}

// The plugin (2026.4) computes a hard sigmoid by a slow reference. The scale of a scaled clamp goes into the
// convolution before it, and the clamp is fused with it.
void clamp_hard_sigmoids(const ov::Model &model) {
    for (const Node &node : of_type(model, "HardSigmoid")) {
        const auto product = std::make_shared<ov::op::v1::Multiply>(node->input_value(0), node->input_value(1));
        const auto scaled = std::make_shared<ov::op::v1::Add>(product, node->input_value(2));
        node->output(0).replace(std::make_shared<ov::op::v0::Clamp>(scaled, 0.0, 1.0)->output(0));
    }
}

// x + x, the input of a stage's first turn, as 2 x: the factor goes into the convolution behind it.
void double_by_multiplying(const ov::Model &model) {
    for (const Node &node : of_type(model, "Add")) {
        const auto first = node->input_value(0);
        if (first != node->input_value(1) || !first.get_element_type().is_real()) continue;
        const auto two = ov::op::v0::Constant::create(first.get_element_type(), ov::Shape{}, {2.0F});
        node->output(0).replace(std::make_shared<ov::op::v1::Multiply>(first, two)->output(0));
    }
}

// Results that become bytes do so before they are moved to their places, not after: a quarter of the memory.
void move_bytes(const ov::Model &model) {
    static const std::set<std::string> moves = {"Reshape",   "Transpose", "Squeeze",
                                                "Unsqueeze", "Slice",     "StridedSlice"};
    for (const Node &convert : of_type(model, "Convert")) {
        const ov::element::Type kind = convert->get_output_element_type(0);
        if (kind.size() >= convert->get_input_element_type(0).size()) continue;
        auto last = convert->input_value(0), source = last;
        Node first;
        while (moves.count(source.get_node()->get_type_name()) != 0 && source.get_target_inputs().size() == 1) {
            first = source.get_node_shared_ptr();
            source = first->input_value(0);
        }
        if (!first) continue;
        const auto consumers = convert->output(0).get_target_inputs();
        const auto names = convert->output(0).get_names();
        first->input(0).replace_source_output(std::make_shared<ov::op::v0::Convert>(source, kind)->output(0));
        for (auto consumer : consumers) consumer.replace_source_output(last);
        last.add_names(names);
    }
}

}  // namespace

void streamline(ov::Model &model) {
    clamp_hard_sigmoids(model);
    double_by_multiplying(model);
    move_bytes(model);
    model.validate_nodes_and_infer_types();
}

}  // namespace derain
