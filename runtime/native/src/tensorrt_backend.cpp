// TensorRT 10.3 and newer, on the first GPU: an engine file, its execution contexts, and one CUDA graph for each size.
#include "backend.hpp"
#include "cuda_memory.hpp"
#include "error.hpp"

#include <NvInfer.h>
#include <algorithm>
#include <cstring>
#include <fstream>
#include <mutex>

namespace derain {
namespace {

constexpr const char *kBuildAgain = "Build the engine on this machine, with derain build";
constexpr std::streamoff kMaxEngineBytes = std::streamoff{8} << 30;
// More contexts than this only wait for the GPU.
constexpr int kMaxLanes = 3;

std::string version() {
    const int32_t number = getInferLibVersion();  // 100300 is 10.3.0
    return std::to_string(number / 10000) + "." + std::to_string(number / 100 % 100) + "." +
           std::to_string(number % 100);
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

nvinfer1::Dims shape_of(const PicturePort &port, int height, int width) {
    return port.layout == Layout::nhwc ? nvinfer1::Dims{4, {1, height, width, 3}}
                                       : nvinfer1::Dims{4, {1, 3, height, width}};
}

class TensorRtLane : public Lane {
  public:
    TensorRtLane(nvinfer1::ICudaEngine &engine, const Card &card, bool shared_memory, Logger &logger)
        : engine_(engine), card_(card), shared_memory_(shared_memory), logger_(logger) {
        context_.reset(engine.createExecutionContext());
        if (!context_) throw Error(DERAIN_BACKEND, "TensorRT cannot make an execution context" + logger.reason());
    }

    void infer(const Tensors &tensors) override {
        if (tensors.height != height_ || tensors.width != width_) resize(tensors.height, tensors.width);
        std::memcpy(frame_.host(), tensors.frame, frame_.bytes());
        frame_.upload(stream_);
        if (graph_) {
            graph_.launch(stream_);
        } else if (!enqueue()) {
            throw Error(DERAIN_BACKEND, "TensorRT cannot run the engine" + logger_.reason(), "", kBuildAgain);
        }
        derained_.download(stream_);
        attention_.download(stream_);
        stream_.wait();
        std::memcpy(tensors.derained, derained_.host(), derained_.bytes());
        std::memcpy(tensors.attention, attention_.host(), attention_.bytes());
        // TensorRT prepares a size in the first plain run; only then can it be recorded.
        if (!graph_ && !recording_failed_) recording_failed_ = !graph_.record(stream_, [this] { return enqueue(); });
    }

  private:
    bool enqueue() { return context_->enqueueV3(stream_.get()); }

    void resize(int height, int width) {
        using nvinfer1::OptProfileSelector;
        graph_.reset();
        height_ = width_ = 0;
        const char *name = card_.frame.name.c_str();
        const auto least = engine_.getProfileShape(name, 0, OptProfileSelector::kMIN);
        const auto most = engine_.getProfileShape(name, 0, OptProfileSelector::kMAX);
        const int row_axis = card_.frame.layout == Layout::nhwc ? 1 : 2;
        const auto outside = [&](int side, int axis) { return side < least.d[axis] || side > most.d[axis]; };
        if (outside(height, row_axis) || outside(width, row_axis + 1)) {
            const auto size = [&](const nvinfer1::Dims &dims) {
                return std::to_string(dims.d[row_axis + 1]) + " x " + std::to_string(dims.d[row_axis]);
            };
            throw Error(DERAIN_BAD_FRAME,
                        "The frame has " + std::to_string(width) + " x " + std::to_string(height) + " pixels",
                        size(least) + " to " + size(most) + ", for which the engine was built",
                        "Resize the frame, or build the engine for this size");
        }
        frame_.resize(card_.frame.bytes(width, height), shared_memory_);
        derained_.resize(card_.derained.bytes(width, height), shared_memory_);
        attention_.resize(sizeof(float) * static_cast<size_t>(width) * static_cast<size_t>(height), shared_memory_);
        const bool bound = context_->setInputShape(name, shape_of(card_.frame, height, width)) &&
                           context_->setTensorAddress(name, frame_.device()) &&
                           context_->setTensorAddress(card_.derained.name.c_str(), derained_.device()) &&
                           context_->setTensorAddress(card_.attention.c_str(), attention_.device());
        if (!bound)
            throw Error(DERAIN_BACKEND, "TensorRT refuses the frame's size" + logger_.reason(), "", kBuildAgain);
        recording_failed_ = false;
        height_ = height;
        width_ = width;
    }

    nvinfer1::ICudaEngine &engine_;
    const Card &card_;
    bool shared_memory_;
    Logger &logger_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    CudaStream stream_;
    CudaGraph graph_;
    bool recording_failed_ = false;
    TensorMemory frame_, derained_, attention_;
    int height_ = 0, width_ = 0;
};

std::vector<char> read_engine(const std::string &path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    const std::streamoff size = file ? static_cast<std::streamoff>(file.tellg()) : 0;
    if (size <= 0 || size > kMaxEngineBytes) {
        throw Error(DERAIN_BAD_MODEL,
                    "The engine file '" + path + "' cannot be used (it has " + std::to_string(size) + " bytes)",
                    "a TensorRT engine beside the model, or named in derain_options.engine", kBuildAgain);
    }
    std::vector<char> bytes(static_cast<size_t>(size));
    file.seekg(0);
    if (!file.read(bytes.data(), size)) throw Error(DERAIN_BAD_MODEL, "The engine file '" + path + "' cannot be read");
    return bytes;
}

class TensorRtBackend : public Backend {
  public:
    TensorRtBackend(const Card &card, const OpenOptions &options)
        : card_(card), lane_count_(std::min(options.lanes, kMaxLanes)), logger_(options.log) {
        check_cuda(cudaGetDeviceProperties(&gpu_, 0), "describe the GPU");
        const std::vector<char> bytes = read_engine(options.engine);
        runtime_.reset(nvinfer1::createInferRuntime(logger_));
        if (runtime_) engine_.reset(runtime_->deserializeCudaEngine(bytes.data(), bytes.size()));
        if (!engine_) {
            throw Error(DERAIN_BACKEND,
                        "TensorRT " + version() + " cannot load '" + options.engine + "'" + logger_.reason(),
                        "an engine built by this TensorRT version for this GPU", kBuildAgain);
        }
        require(card.frame.name, card.frame.type, nvinfer1::TensorIOMode::kINPUT, options.engine);
        require(card.derained.name, card.derained.type, nvinfer1::TensorIOMode::kOUTPUT, options.engine);
        require(card.attention, Type::f32, nvinfer1::TensorIOMode::kOUTPUT, options.engine);
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
    void require(const std::string &name, Type type, nvinfer1::TensorIOMode mode, const std::string &path) const {
        const auto wanted = type == Type::u8 ? nvinfer1::DataType::kUINT8 : nvinfer1::DataType::kFLOAT;
        if (engine_->getTensorIOMode(name.c_str()) == mode && engine_->getTensorDataType(name.c_str()) == wanted)
            return;
        throw Error(DERAIN_BAD_MODEL,
                    "The engine '" + path + "' has no '" + name + "' of the type that the model card declares",
                    "an engine built from this model", kBuildAgain);
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
