// OpenVINO on the CPU. The settings are those of the Python runtime, so that both give the same bytes.
#include "backend.hpp"
#include "error.hpp"

#include <openvino/openvino.hpp>
#include <openvino/runtime/intel_cpu/properties.hpp>

namespace derain {
namespace {

std::string version() {
    const std::string build = ov::get_openvino_version().buildNumber;
    return build.substr(0, build.find('-'));
}

// OpenVINO puts whole stacks into its messages; the last lines tell the cause.
Error refused(const std::string &what, const std::string &path, const std::exception &error) {
    std::vector<std::string> lines(1);
    for (const char *text = error.what(); *text != '\0'; ++text) {
        if (*text == '\n') {
            if (!lines.back().empty()) lines.emplace_back();
        } else {
            lines.back() += *text;
        }
    }
    if (lines.size() > 1 && lines.back().empty()) lines.pop_back();
    std::string cause = lines.back();
    if (lines.size() > 1) cause = lines[lines.size() - 2] + " " + cause;
    return {DERAIN_BACKEND, "OpenVINO " + version() + " " + what + " '" + path + "': " + cause.substr(0, 400)};
}

struct Ports {
    ov::Output<const ov::Node> frame, derained, attention;
};

ov::Output<const ov::Node> port(const std::vector<ov::Output<const ov::Node>> &ports, const std::string &name,
                                ov::element::Type type, const std::string &path) {
    for (const auto &one : ports) {
        if (one.get_names().count(name) == 0) continue;
        if (one.get_element_type() == type) return one;
        throw Error(DERAIN_BAD_MODEL,
                    "'" + name + "' in '" + path + "' has the type " + one.get_element_type().to_string(),
                    type.to_string() + ", as its card declares", "Export the model again with: derain export");
    }
    throw Error(DERAIN_BAD_MODEL, "The graph in '" + path + "' has no '" + name + "'", "the ports its card declares",
                "Export the model again with: derain export");
}

ov::element::Type type_of(const PicturePort &port) {
    return port.type == Type::u8 ? ov::element::u8 : ov::element::f32;
}

ov::Shape shape_of(const PicturePort &port, size_t height, size_t width) {
    return port.layout == Layout::nhwc ? ov::Shape{1, height, width, 3} : ov::Shape{1, 3, height, width};
}

class OpenVinoLane : public Lane {
  public:
    OpenVinoLane(ov::InferRequest request, Ports ports, const Card &card, std::string path)
        : request_(std::move(request)), ports_(std::move(ports)), card_(card), path_(std::move(path)) {}

    void infer(const Tensors &tensors) override {
        const auto height = static_cast<size_t>(tensors.height), width = static_cast<size_t>(tensors.width);
        try {
            // OpenVINO only reads an input, but its Tensor knows no const memory.
            const ov::Tensor frame(type_of(card_.frame), shape_of(card_.frame, height, width),
                                   const_cast<void *>(tensors.frame));
            const ov::Tensor derained(type_of(card_.derained), shape_of(card_.derained, height, width),
                                      tensors.derained);
            const ov::Tensor attention(ov::element::f32, {1, height, width}, tensors.attention);
            request_.set_tensor(ports_.frame, frame);
            request_.set_tensor(ports_.derained, derained);
            request_.set_tensor(ports_.attention, attention);
            request_.infer();
            require_written(ports_.derained, derained);
            require_written(ports_.attention, attention);
        } catch (const ov::Exception &error) {
            throw refused("failed on", path_, error);
        }
    }

  private:
    // A result of another shape makes the plugin leave our memory alone and take memory of its own.
    void require_written(const ov::Output<const ov::Node> &output, const ov::Tensor &ours) {
        const ov::Tensor written = request_.get_tensor(output);
        if (written.data() == ours.data() && written.get_shape() == ours.get_shape()) return;
        throw Error(DERAIN_BACKEND,
                    "OpenVINO gave '" + output.get_any_name() + "' the shape " + written.get_shape().to_string(),
                    ours.get_shape().to_string() + ", as the card of '" + path_ + "' declares");
    }

    ov::InferRequest request_;
    Ports ports_;
    const Card &card_;
    std::string path_;
};

class OpenVinoBackend : public Backend {
  public:
    OpenVinoBackend(const Card &card, const OpenOptions &options) : card_(card), path_(options.path) {
        try {
            compiled_ = core_.compile_model(core_.read_model(path_), "CPU",
                                            ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
                                            ov::inference_num_threads(options.threads),
                                            // CPUs with bfloat16 units would silently compute in it; the quality on
                                            // the card was measured in float32.
                                            ov::hint::inference_precision(ov::element::f32),
                                            // Dark frames produce denormal numbers, which cost 100 times a normal one.
                                            ov::intel_cpu::denormals_optimization(true));
        } catch (const ov::Exception &error) {
            throw refused("cannot load", path_, error);
        }
        ports_ = {port(compiled_.inputs(), card.frame.name, type_of(card.frame), path_),
                  port(compiled_.outputs(), card.derained.name, type_of(card.derained), path_),
                  port(compiled_.outputs(), card.attention, ov::element::f32, path_)};
        if (card.precision == "int8") {
            options.log(
                DERAIN_LOG_WARNING,
                "OpenVINO saturates INT8 sums on CPUs without VNNI, and is not faster there: prefer the float32 "
                "model on such a CPU");
        }
    }

    std::string device() const override { return "OpenVINO " + version() + " on CPU"; }

    // One: inferences side by side on the same cores only slow each other down.
    std::vector<std::unique_ptr<Lane>> lanes() override {
        std::vector<std::unique_ptr<Lane>> lanes;
        lanes.push_back(std::make_unique<OpenVinoLane>(compiled_.create_infer_request(), ports_, card_, path_));
        return lanes;
    }

  private:
    const Card &card_;
    std::string path_;
    ov::Core core_;
    ov::CompiledModel compiled_;
    Ports ports_;
};

}  // namespace

BackendKind openvino_kind() {
    return {"openvino", [] { return std::string(); },
            [](const Card &card, const OpenOptions &options) -> std::unique_ptr<Backend> {
                return std::make_unique<OpenVinoBackend>(card, options);
            }};
}

}  // namespace derain
