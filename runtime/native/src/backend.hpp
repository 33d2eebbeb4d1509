// What an inference backend offers. It runs the graph of one model; it knows nothing of frames and pixel formats.
#pragma once

#include "card.hpp"

#include <derain.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace derain {

// The tensors of one inference, in the order and the forms of the card's ports, batch 1.
struct Tensors {
    int width, height;
    const void *inputs[2];
    void *outputs[2];
};

// Runs one inference at a time. A backend may have several lanes, which then run at once.
class Lane {
  public:
    virtual ~Lane() = default;

    // From tensors.inputs into tensors.outputs. Throws Error(DERAIN_BACKEND).
    virtual void infer(const Tensors &tensors) = 0;
};

struct OpenOptions {
    std::string path;    // the .onnx file, or an engine
    std::string engine;  // TensorRT's engine file, if the caller named one
    int threads;
    int lanes;  // frames in flight that the caller asked for; a backend may use fewer
    std::function<void(derain_log_level, const std::string &)> log;
};

// A model opened by an engine.
class Backend {
  public:
    virtual ~Backend() = default;

    // The engine, its version and the device, for people to read.
    virtual std::string device() const = 0;

    virtual std::vector<std::unique_ptr<Lane>> lanes() = 0;
};

struct BackendKind {
    const char *name;
    // Why this machine cannot use it; empty when it can.
    std::string (*unavailable)();
    // Throws Error(DERAIN_BACKEND) when the engine refuses the model, Error(DERAIN_BAD_MODEL) when its graph has other
    // ports than the card says.
    std::unique_ptr<Backend> (*open)(const Card &card, const OpenOptions &options);
};

// Those of this build, best first.
const std::vector<BackendKind> &backend_kinds();

// By name, or, without one, the first that this machine can use; for 8-bit models on a CPU that is ONNX Runtime, whose
// arithmetic is exact on every CPU. Throws Error(DERAIN_BACKEND).
const BackendKind &choose_backend(const std::string &name, const Card &card);

// Each is compiled in when CMake finds its engine.
BackendKind tensorrt_kind();
BackendKind openvino_kind();
BackendKind onnxruntime_kind();

}  // namespace derain
