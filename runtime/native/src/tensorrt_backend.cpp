// TensorRT 10.3 and newer, on the first GPU: an engine file, its execution contexts, and one CUDA graph for each size.
#include "backend.hpp"
#include "cuda_memory.hpp"
#include "engine_file.hpp"
#include "error.hpp"
#include "self_test.hpp"

#include <NvInfer.h>
#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <mutex>

namespace derain {
namespace {

constexpr const char *kBuildAgain = "Build the engine on this machine, with derain build";
// More contexts than this only wait for the GPU.
constexpr int kMaxLanes = 3;

std::string version() {
    return std::to_string(getInferLibMajorVersion()) + "." + std::to_string(getInferLibMinorVersion()) + "." +
           std::to_string(getInferLibPatchVersion()) + "." + std::to_string(getInferLibBuildVersion());
}

class Logger : public nvinfer1::ILogger {
  public:
    explicit Logger(std::function<void(derain_log_level, const std::string &)> log) : log_(std::move(log)) {}

    void log(Severity severity, const char *message) noexcept override {
        if (severity > Severity::kWARNING) return;
        try {
            if (severity <= Severity::kERROR) {
                const std::lock_guard lock(mutex_);
                last_error_ = message;
            }
            log_(severity <= Severity::kERROR ? DERAIN_LOG_ERROR : DERAIN_LOG_WARNING, message);
        } catch (...) {  // no memory for a log line: the call that failed tells it as well
        }
    }

    // " (why)", or nothing.
    std::string reason() {
        const std::lock_guard lock(mutex_);
        return last_error_.empty() ? "" : " (" + last_error_.substr(0, 400) + ")";
    }

  private:
    std::function<void(derain_log_level, const std::string &)> log_;
    std::mutex mutex_;
    std::string last_error_;
};

nvinfer1::Dims shape_of(const Port &port, int width, int height) {
    const auto axes = port.shape(width, height);
    nvinfer1::Dims dims{};
    dims.nbDims = static_cast<int32_t>(port.rank());
    std::copy_n(axes.begin(), port.rank(), dims.d);
    return dims;
}

nvinfer1::DataType type_of(const Port &port) {
    return port.type == Type::u8    ? nvinfer1::DataType::kUINT8
           : port.type == Type::f16 ? nvinfer1::DataType::kHALF
                                    : nvinfer1::DataType::kFLOAT;
}

class TensorRtLane : public Lane {
  public:
    TensorRtLane(nvinfer1::ICudaEngine &engine, const Card &card, bool shared_memory, Logger &logger)
        : engine_(engine), card_(card), shared_memory_(shared_memory), logger_(logger) {
        context_.reset(engine.createExecutionContext());
        if (!context_) throw Error(DERAIN_BACKEND, "TensorRT cannot make an execution context" + logger.reason());
    }

    void infer(const Tensors &tensors) override {
        if (tensors.width != width_ || tensors.height != height_) resize(tensors.width, tensors.height);
        for (size_t i = 0; i < card_.inputs.size(); ++i) {
            std::memcpy(inputs_[i].host(), tensors.inputs[i], inputs_[i].bytes());
            inputs_[i].upload(stream_);
        }
        if (graph_) {
            graph_.launch(stream_);
        } else if (!enqueue()) {
            throw Error(DERAIN_BACKEND, "TensorRT cannot run the engine" + logger_.reason(), "", kBuildAgain);
        }
        for (size_t i = 0; i < card_.outputs.size(); ++i) outputs_[i].download(stream_);
        stream_.wait();
        for (size_t i = 0; i < card_.outputs.size(); ++i) {
            std::memcpy(tensors.outputs[i], outputs_[i].host(), outputs_[i].bytes());
        }
        // TensorRT prepares a size in the first plain run; only then can it be recorded.
        if (!graph_ && !recording_failed_) recording_failed_ = !graph_.record(stream_, [this] { return enqueue(); });
    }

  private:
    bool enqueue() { return context_->enqueueV3(stream_.get()); }

    void resize(int width, int height) {
        graph_.reset();
        height_ = width_ = 0;
        require_profile(width, height);
        bool bound = true;
        for (size_t i = 0; i < card_.inputs.size(); ++i) {
            const Port &port = card_.inputs[i];
            inputs_[i].resize(port.bytes(width, height), shared_memory_);
            bound = bound && context_->setInputShape(port.name.c_str(), shape_of(port, width, height)) &&
                    context_->setTensorAddress(port.name.c_str(), inputs_[i].device());
        }
        for (size_t i = 0; i < card_.outputs.size(); ++i) {
            const Port &port = card_.outputs[i];
            outputs_[i].resize(port.bytes(width, height), shared_memory_);
            bound = bound && context_->setTensorAddress(port.name.c_str(), outputs_[i].device());
        }
        if (!bound) {
            throw Error(DERAIN_BACKEND, "TensorRT refuses the frame's size" + logger_.reason(), "", kBuildAgain);
        }
        recording_failed_ = false;
        height_ = height;
        width_ = width;
    }

    // Throws Error(DERAIN_BAD_FRAME) for a size that the engine was not built for.
    void require_profile(int width, int height) const {
        using nvinfer1::OptProfileSelector;
        const Port &port = card_.frame();
        const auto least = engine_.getProfileShape(port.name.c_str(), 0, OptProfileSelector::kMIN);
        const auto most = engine_.getProfileShape(port.name.c_str(), 0, OptProfileSelector::kMAX);
        const int row_axis = port.layout == Layout::nchw ? 2 : 1;
        const auto outside = [&](int side, int axis) { return side < least.d[axis] || side > most.d[axis]; };
        if (!outside(height, row_axis) && !outside(width, row_axis + 1)) return;
        const auto size = [&](const nvinfer1::Dims &dims) {
            return std::to_string(dims.d[row_axis + 1]) + " x " + std::to_string(dims.d[row_axis]);
        };
        throw Error(DERAIN_BAD_FRAME,
                    "The frame has " + std::to_string(width) + " x " + std::to_string(height) + " pixels",
                    size(least) + " to " + size(most) + ", for which the engine was built",
                    "Resize the frame, or build the engine for this size");
    }

    nvinfer1::ICudaEngine &engine_;
    const Card &card_;
    bool shared_memory_;
    Logger &logger_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    CudaStream stream_;
    CudaGraph graph_;
    bool recording_failed_ = false;
    TensorMemory inputs_[2], outputs_[2];
    int height_ = 0, width_ = 0;
};

Machine describe(const cudaDeviceProp &gpu) {
    int cuda = 0;
    check_cuda(cudaDriverGetVersion(&cuda), "tell the driver's version");
    std::ifstream file("/proc/driver/nvidia/version");
    const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    return {version(), gpu.name, {gpu.major, gpu.minor}, {cuda / 1000, cuda % 1000 / 10}, kernel_module_version(text)};
}

class TensorRtBackend : public Backend {
  public:
    TensorRtBackend(const Card &card, const OpenOptions &options)
        : card_(card), lane_count_(std::min(options.lanes, kMaxLanes)), logger_(options.log) {
        check_cuda(cudaGetDeviceProperties(&gpu_, 0), "describe the GPU");
        const EngineFile file = find_engine(options.path, options.engine, card, describe(gpu_), options.log);
        runtime_.reset(nvinfer1::createInferRuntime(logger_));
        if (runtime_) engine_.reset(runtime_->deserializeCudaEngine(file.plan.data(), file.plan.size()));
        if (!engine_) {
            throw Error(DERAIN_BACKEND, "TensorRT " + version() + " cannot load '" + file.path + "'" + logger_.reason(),
                        "an engine built by this TensorRT version for this GPU", kBuildAgain);
        }
        for (const Port &port : card.inputs) require(port, nvinfer1::TensorIOMode::kINPUT, file.path);
        for (const Port &port : card.outputs) require(port, nvinfer1::TensorIOMode::kOUTPUT, file.path);
        if (!file.record.tested) test(file, options);
    }

    std::string device() const override { return "TensorRT " + version() + " on " + gpu_.name; }

    std::vector<std::unique_ptr<Lane>> lanes() override {
        std::vector<std::unique_ptr<Lane>> lanes;
        for (int i = 0; i < lane_count_; ++i) {
            lanes.push_back(std::make_unique<TensorRtLane>(*engine_, card_, gpu_.integrated != 0, logger_));
        }
        return lanes;
    }

  private:
    void require(const Port &port, nvinfer1::TensorIOMode mode, const std::string &path) const {
        const char *name = port.name.c_str();
        if (engine_->getTensorIOMode(name) == mode && engine_->getTensorDataType(name) == type_of(port)) return;
        throw Error(DERAIN_BAD_MODEL,
                    "The engine '" + path + "' has no '" + port.name + "' of the type that the model card declares",
                    "an engine built from this model", kBuildAgain);
    }

    // Run the fixed picture, which this engine never did, and note in its record that it passed.
    void test(const EngineFile &file, const OpenOptions &options) {
        TensorRtLane lane(*engine_, card_, gpu_.integrated != 0, logger_);
        const Profile &profile = file.record.key ? file.record.key->profile : card_.profile;
        const SelfTest found = self_test_against_cpu(lane, card_, profile, file.onnx, options.threads);
        if (!write_self_test(file.path, file.record, found)) {
            options.log(DERAIN_LOG_WARNING, "'" + record_path(file.path) +
                                                "' cannot be written: the engine is used, and tested again next time");
        }
    }

    const Card &card_;
    int lane_count_;
    Logger logger_;
    cudaDeviceProp gpu_{};
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
};

std::string no_gpu() {
    int driver = 0, devices = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return "there is no NVIDIA driver";
    const cudaError_t status = cudaGetDeviceCount(&devices);
    if (status != cudaSuccess) return std::string("CUDA finds no GPU (") + cudaGetErrorString(status) + ")";
    return devices == 0 ? "there is no NVIDIA GPU" : "";
}

}  // namespace

BackendKind tensorrt_kind() {
    return {"tensorrt", no_gpu, [](const Card &card, const OpenOptions &options) -> std::unique_ptr<Backend> {
                return std::make_unique<TensorRtBackend>(card, options);
            }};
}

}  // namespace derain
