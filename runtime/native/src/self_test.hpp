// Is an engine the network it was built from? A fixed picture through both tells (derain.runtime.engine.selftest in
// Python): an engine that builds can still be wrong, by a kernel's defect or a layer out of float16's range.
#pragma once

#include "backend.hpp"
#include "engine_record.hpp"

namespace derain {

// Size of the picture: small enough for a Jetson's CPU, and what the engine takes.
std::pair<int, int> picture_size(const Profile &profile);  // width, height

// The fixed picture in the form of an input port: smooth colours, edges, and slanted bright streaks.
std::vector<uint8_t> fixed_input(const Port &port, int width, int height);

// Run the fixed picture through an engine, and compare with the same graph in another backend; without one (nullptr),
// only see whether the result is finite and no single colour. Throws Error(DERAIN_BACKEND).
SelfTest self_test(Lane &engine, Lane *reference, const std::string &reference_name, const Card &card,
                   const Profile &profile);

// self_test with the best other backend of this build as the reference. `onnx` is empty where there is no model file.
SelfTest self_test_against_cpu(Lane &engine, const Card &card, const Profile &profile, const std::string &onnx,
                               int threads);

}  // namespace derain
