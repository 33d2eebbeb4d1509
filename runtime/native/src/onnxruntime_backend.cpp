// ONNX Runtime on the CPU, through its C API. The settings are those of the Python runtime, so that both give the same
// bytes; INT8 graphs are computed exactly on every CPU.
#include "backend.hpp"
#include "error.hpp"

#include <onnxruntime_c_api.h>

namespace derain {
namespace {

// Of ONNX Runtime 1.11. Later libraries have it too, so a program built here runs with all of them.
constexpr uint32_t kApiVersion = 11;
constexpr const char *kExportAgain = "Export the model again with: derain export";

const OrtApi *api() {
    static const OrtApi *const found = OrtGetApiBase()->GetApi(kApiVersion);
    return found;
}

std::string version() {
    return std::string("ONNX Runtime ") + OrtGetApiBase()->GetVersionString();
}

// Throws what an OrtStatus tells: "ONNX Runtime 1.20.0 cannot load 'edge.onnx': why".
void check(OrtStatus *status, const std::string &what, const std::string &path) {
    if (status == nullptr) return;
    const std::string cause = api()->GetErrorMessage(status);
    api()->ReleaseStatus(status);
    throw Error(DERAIN_BACKEND, version() + " " + what + " '" + path + "': " + cause.substr(0, 400));
}

// ONNX Runtime's handles, each with the function that gives it back.
struct Release {
    void operator()(OrtEnv *one) const { api()->ReleaseEnv(one); }
    void operator()(OrtSession *one) const { api()->ReleaseSession(one); }
    void operator()(OrtSessionOptions *one) const { api()->ReleaseSessionOptions(one); }
    void operator()(OrtMemoryInfo *one) const { api()->ReleaseMemoryInfo(one); }
    void operator()(OrtTypeInfo *one) const { api()->ReleaseTypeInfo(one); }
    void operator()(OrtValue *one) const { api()->ReleaseValue(one); }
};
template <typename T>
using Handle = std::unique_ptr<T, Release>;

ONNXTensorElementDataType type_of(const Port &port) {
    return port.type == Type::u8    ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8
           : port.type == Type::f16 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16
                                    : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}

class OnnxRuntimeLane : public Lane {
  public:
    OnnxRuntimeLane(OrtSession &session, const Card &card, const std::string &path)
        : session_(session), card_(card), path_(path) {
        OrtMemoryInfo *memory = nullptr;
        check(api()->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory), "cannot describe", "memory");
        memory_.reset(memory);
        for (const Port &port : card.inputs) input_names_.push_back(port.name.c_str());
        for (const Port &port : card.outputs) output_names_.push_back(port.name.c_str());
    }

    void infer(const Tensors &tensors) override {
        Handle<OrtValue> values[4];
        OrtValue *inputs[2] = {}, *outputs[2] = {};
        size_t count = 0;
        for (size_t i = 0; i < card_.inputs.size(); ++i) {
            // It is only read, but OrtValue knows no const memory.
            values[count] = tensor(card_.inputs[i], tensors, const_cast<void *>(tensors.inputs[i]));
            inputs[i] = values[count++].get();
        }
        for (size_t i = 0; i < card_.outputs.size(); ++i) {
            values[count] = tensor(card_.outputs[i], tensors, tensors.outputs[i]);
            outputs[i] = values[count++].get();
        }
        check(api()->Run(&session_, nullptr, input_names_.data(), inputs, input_names_.size(), output_names_.data(),
                         output_names_.size(), outputs),
              "failed on", path_);
    }

  private:
    // The caller's memory; a result of another shape is refused by ONNX Runtime.
    Handle<OrtValue> tensor(const Port &port, const Tensors &tensors, void *data) const {
        const auto shape = port.shape(tensors.width, tensors.height);
        OrtValue *value = nullptr;
        check(api()->CreateTensorWithDataAsOrtValue(memory_.get(), data, port.bytes(tensors.width, tensors.height),
                                                    shape.data(), port.rank(), type_of(port), &value),
              "cannot bind '" + port.name + "' of", path_);
        return Handle<OrtValue>(value);
    }

    OrtSession &session_;
    const Card &card_;
    const std::string &path_;
    Handle<OrtMemoryInfo> memory_;
    std::vector<const char *> input_names_, output_names_;
};

class OnnxRuntimeBackend : public Backend {
  public:
    OnnxRuntimeBackend(const Card &card, const OpenOptions &options) : card_(card), path_(options.path) {
        OrtEnv *env = nullptr;
        check(api()->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "derain", &env), "does not start for", path_);
        env_.reset(env);
        OrtSessionOptions *made = nullptr;
        check(api()->CreateSessionOptions(&made), "does not start for", path_);
        const Handle<OrtSessionOptions> settings(made);
        const auto set = [&](OrtStatus *status) { check(status, "refuses its settings for", path_); };
        set(api()->SetIntraOpNumThreads(made, options.threads));
        set(api()->SetInterOpNumThreads(made, 1));
        set(api()->SetSessionLogSeverityLevel(made, ORT_LOGGING_LEVEL_FATAL));
        // The default INT8 kernels saturate on CPUs without VNNI.
        set(api()->AddSessionConfigEntry(made, "session.x64quantprecision", "1"));
        // Biases stay floats, as in TensorRT; rounded to int32 they moved a picture by up to 3 levels.
        set(api()->AddSessionConfigEntry(made, "optimization.disable_specified_optimizers", "WeightBiasQuantization"));
        // Dark frames produce denormal numbers, which cost 100 times a normal one.
        set(api()->AddSessionConfigEntry(made, "session.set_denormal_as_zero", "1"));
        if (card.precision == "float8") {  // it would fuse FP8 pairs into operators that know INT8 alone
            set(api()->AddSessionConfigEntry(made, "session.disable_quant_qdq", "1"));
        }
        OrtSession *session = nullptr;
        check(api()->CreateSession(env, path_.c_str(), made, &session), "cannot load", path_);
        session_.reset(session);
        size_t inputs = 0, outputs = 0;
        check(api()->SessionGetInputCount(session, &inputs), "cannot read", path_);
        check(api()->SessionGetOutputCount(session, &outputs), "cannot read", path_);
        require(card.inputs, inputs, api()->SessionGetInputName, api()->SessionGetInputTypeInfo);
        require(card.outputs, outputs, api()->SessionGetOutputName, api()->SessionGetOutputTypeInfo);
    }

    std::string device() const override { return version() + " on CPU"; }

    // One: inferences side by side on the same cores only slow each other down.
    std::vector<std::unique_ptr<Lane>> lanes() override {
        std::vector<std::unique_ptr<Lane>> lanes;
        lanes.push_back(std::make_unique<OnnxRuntimeLane>(*session_, card_, path_));
        return lanes;
    }

  private:
    // Each port of the card is one of the graph's, with the type that the card declares.
    template <typename GetName, typename GetType>
    void require(const std::vector<Port> &ports, size_t count, GetName get_name, GetType get_type) const {
        OrtAllocator *allocator = nullptr;
        check(api()->GetAllocatorWithDefaultOptions(&allocator), "cannot read", path_);
        for (const Port &port : ports) {
            bool found = false;
            for (size_t i = 0; i < count && !found; ++i) {
                char *name = nullptr;
                check(get_name(session_.get(), i, allocator, &name), "cannot read", path_);
                found = port.name == name;
                check(api()->AllocatorFree(allocator, name), "cannot read", path_);
                if (found) require_type(port, i, get_type);
            }
            if (!found) {
                throw Error(DERAIN_BAD_MODEL, "The graph in '" + path_ + "' has no '" + port.name + "'",
                            "the ports its card declares", kExportAgain);
            }
        }
    }

    template <typename GetType>
    void require_type(const Port &port, size_t index, GetType get_type) const {
        OrtTypeInfo *info = nullptr;
        check(get_type(session_.get(), index, &info), "cannot read", path_);
        const Handle<OrtTypeInfo> owned(info);
        const OrtTensorTypeAndShapeInfo *tensor = nullptr;
        check(api()->CastTypeInfoToTensorInfo(info, &tensor), "cannot read", path_);
        ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
        if (tensor != nullptr) check(api()->GetTensorElementType(tensor, &type), "cannot read", path_);
        if (type == type_of(port)) return;
        throw Error(DERAIN_BAD_MODEL, "'" + port.name + "' in '" + path_ + "' has another type",
                    "the one its card declares", kExportAgain);
    }

    const Card &card_;
    std::string path_;
    Handle<OrtEnv> env_;
    Handle<OrtSession> session_;
};

std::string too_old() {
    return api() != nullptr ? "" : version() + " is older than 1.11";
}

}  // namespace

BackendKind onnxruntime_kind() {
    return {"onnxruntime", too_old, [](const Card &card, const OpenOptions &options) -> std::unique_ptr<Backend> {
                return std::make_unique<OnnxRuntimeBackend>(card, options);
            }};
}

}  // namespace derain
