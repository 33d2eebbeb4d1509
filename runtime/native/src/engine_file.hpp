// The right engine for a model on this machine: named, beside it, or in the cache of `derain build` and the Python
// runtime.
#pragma once

#include "engine_record.hpp"

#include <derain.h>

#include <functional>

namespace derain {

struct EngineFile {
    std::string path;
    EngineRecord record;
    std::vector<char> plan;
    std::string onnx;  // the model file it was built from; empty where it is not there
};

// Whether a file is meant as an engine, by its ending: engines have no marker that all versions of TensorRT share.
bool is_engine(const std::string &path);

// The card of a model file or of an engine. Throws Error(DERAIN_BAD_MODEL).
Card read_model_card(const std::string &path);

// Where the Python runtime keeps the engine that it builds of a model for this machine.
std::string cached_engine(const Card &card, const std::string &onnx_sha256, const Machine &machine);

// An engine that is whole, was built from this model, and belongs to this machine. `model` is an ONNX file or an
// engine; `given` the engine's file, if the caller named one. Throws Error(DERAIN_BAD_MODEL), which tells what is wrong
// with each engine that was found.
EngineFile find_engine(const std::string &model, const std::string &given, const Card &card, const Machine &machine,
                       const std::function<void(derain_log_level, const std::string &)> &log);

}  // namespace derain
