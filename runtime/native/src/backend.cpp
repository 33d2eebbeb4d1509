#include "backend.hpp"

#include "error.hpp"

#include <algorithm>

namespace derain {

const std::vector<BackendKind> &backend_kinds() {
    static const std::vector<BackendKind> kinds = {
#ifdef DERAIN_WITH_TENSORRT
        tensorrt_kind(),
#endif
#ifdef DERAIN_WITH_OPENVINO
        openvino_kind(),
#endif
#ifdef DERAIN_WITH_ONNXRUNTIME
        onnxruntime_kind(),
#endif
    };
    return kinds;
}

const BackendKind &choose_backend(const std::string &name, const Card &card) {
    std::vector<const BackendKind *> kinds;
    for (const BackendKind &kind : backend_kinds()) kinds.push_back(&kind);
    if (card.precision == "int8" || card.precision == "float8") {
        const auto saturates = [](const BackendKind *kind) { return std::string(kind->name) == "openvino"; };
        std::stable_partition(kinds.begin(), kinds.end(), [&](const BackendKind *kind) { return !saturates(kind); });
    }
    std::string known, reasons;
    for (const BackendKind *one : kinds) {
        const BackendKind &kind = *one;
        known += (known.empty() ? "" : ", ") + std::string(kind.name);
        if (!name.empty() && name != kind.name) continue;
        const std::string problem = kind.unavailable();
        if (problem.empty()) return kind;
        reasons += (reasons.empty() ? "" : "; ") + std::string(kind.name) + ": " + problem;
    }
    if (known.empty()) {
        throw Error(DERAIN_BACKEND, "This libderain was built without any backend", "",
                    "Build it where CMake finds OpenVINO (pip install openvino), ONNX Runtime or TensorRT");
    }
    if (reasons.empty()) {
        throw Error(DERAIN_BACKEND, "This libderain has no backend '" + name + "'", "one of: " + known,
                    "Or build it where CMake finds that engine");
    }
    throw Error(DERAIN_BACKEND, "No backend can be used here (" + reasons + ")");
}

}  // namespace derain
