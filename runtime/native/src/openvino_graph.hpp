// Rewrites of a graph that OpenVINO's CPU plugin does not make itself, the same as those of the Python runtime
// (derain.runtime.backends.openvino_graph), so that both give the same bytes.
#pragma once

#include <openvino/core/model.hpp>

namespace derain {

// In place; inputs and outputs keep their names, types and shapes.
void streamline(ov::Model &model);

}  // namespace derain
