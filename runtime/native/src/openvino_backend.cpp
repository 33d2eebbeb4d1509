// OpenVINO on the CPU. The settings are those of the Python runtime, so that both give the same bytes.
#include "backend.hpp"
#include "error.hpp"
#include "half.hpp"
#include "openvino_graph.hpp"

#include <openvino/openvino.hpp>
#include <openvino/runtime/intel_cpu/properties.hpp>

#include <algorithm>
#include <cmath>
#include <map>

namespace derain {
namespace {

constexpr const char *kExportAgain = "Export the model again with: derain export";
constexpr int kSettled = 3;          // frames of one size in a row, after which more of them are to be expected
constexpr size_t kSizesKept = 4;     // as many sizes as the tiles of one frame have
constexpr float kTolerance = 1e-3F;  // of values in [0, 1], and of the share of levels that may differ by one

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

using OvPort = ov::Output<const ov::Node>;

ov::element::Type type_of(const Port &port) {
    return port.type == Type::u8 ? ov::element::u8 : port.type == Type::f16 ? ov::element::f16 : ov::element::f32;
}

OvPort find(const std::vector<OvPort> &ports, const Port &port, const std::string &path) {
    for (const OvPort &one : ports) {
        if (one.get_names().count(port.name) == 0) continue;
        if (one.get_element_type() == type_of(port)) return one;
        throw Error(DERAIN_BAD_MODEL,
                    "'" + port.name + "' in '" + path + "' has the type " + one.get_element_type().to_string(),
                    type_of(port).to_string() + ", as its card declares", kExportAgain);
    }
    throw Error(DERAIN_BAD_MODEL, "The graph in '" + path + "' has no '" + port.name + "'",
                "the ports its card declares", kExportAgain);
}

ov::Shape shape_of(const Port &port, const Tensors &tensors) {
    const auto axes = port.shape(tensors.width, tensors.height);
    return {axes.begin(), axes.begin() + static_cast<std::ptrdiff_t>(port.rank())};
}

// The caller's memory as a tensor. OpenVINO only reads an input, but its Tensor knows no const memory.
ov::Tensor tensor(const Port &port, const Tensors &tensors, const void *memory) {
    return {type_of(port), shape_of(port, tensors), const_cast<void *>(memory)};
}

// A compiled graph, ready to run, and its ports in the card's order.
class Graph {
  public:
    Graph(ov::CompiledModel compiled, const Card &card, const std::string &path)
        : card_(card), path_(path), request_(compiled.create_infer_request()) {
        for (const Port &port : card.inputs) inputs_.push_back(find(compiled.inputs(), port, path));
        for (const Port &port : card.outputs) outputs_.push_back(find(compiled.outputs(), port, path));
    }

    void run(const Tensors &tensors) {
        for (size_t i = 0; i < inputs_.size(); ++i) {
            request_.set_tensor(inputs_[i], tensor(card_.inputs[i], tensors, tensors.inputs[i]));
        }
        for (size_t i = 0; i < outputs_.size(); ++i) {
            request_.set_tensor(outputs_[i], tensor(card_.outputs[i], tensors, tensors.outputs[i]));
        }
        request_.infer();
        for (size_t i = 0; i < outputs_.size(); ++i) {
            require_written(outputs_[i], tensor(card_.outputs[i], tensors, tensors.outputs[i]));
        }
    }

  private:
    // A result of another shape makes the plugin leave our memory alone and take memory of its own.
    void require_written(const OvPort &output, const ov::Tensor &ours) {
        const ov::Tensor written = request_.get_tensor(output);
        if (written.data() == ours.data() && written.get_shape() == ours.get_shape()) return;
        throw Error(DERAIN_BACKEND,
                    "OpenVINO gave '" + output.get_any_name() + "' the shape " + written.get_shape().to_string(),
                    ours.get_shape().to_string() + ", as the card of '" + path_ + "' declares");
    }

    const Card &card_;
    const std::string &path_;
    ov::InferRequest request_;
    std::vector<OvPort> inputs_, outputs_;
};

template <typename Value, typename Apart>
size_t count_apart(const void *found, const void *expected, size_t count, Apart apart) {
    const auto *a = static_cast<const Value *>(found), *b = static_cast<const Value *>(expected);
    size_t result = 0;
    for (size_t i = 0; i < count; ++i) result += apart(a[i], b[i]) ? 1 : 0;
    return result;
}

// Whether two results are one but for rounding.
bool agree(const Port &port, const void *found, const void *expected, size_t bytes) {
    const auto far = [](float a, float b) { return !(std::abs(a - b) <= kTolerance * (1 + std::abs(b))); };
    if (port.type == Type::f32) return count_apart<float>(found, expected, bytes / 4, far) == 0;
    if (port.type == Type::f16) {
        const auto halves = [&](uint16_t a, uint16_t b) { return far(half_to_float(a), half_to_float(b)); };
        return count_apart<uint16_t>(found, expected, bytes / 2, halves) == 0;
    }
    const auto levels = [](uint8_t a, uint8_t b) { return std::abs(a - b) > 1; };
    const auto other = [](uint8_t a, uint8_t b) { return a != b; };
    const auto allowed = std::max<size_t>(1, static_cast<size_t>(static_cast<float>(bytes) * kTolerance));
    return count_apart<uint8_t>(found, expected, bytes, levels) == 0 &&
           count_apart<uint8_t>(found, expected, bytes, other) <= allowed;
}

using Compile = std::function<ov::CompiledModel(const std::shared_ptr<ov::Model> &)>;

// The plugin computes faster when it knows the size of the frames: fewer copies between layouts, more layers fused. So
// when a size has come kSettled times in a row, the graph is compiled once more, for this size alone. That graph serves
// if it gives the same result as the first one did, to within rounding. The Python runtime follows the same rule.
class OpenVinoLane : public Lane {
  public:
    OpenVinoLane(std::shared_ptr<ov::Model> model, Compile compile, const Card &card, const std::string &path)
        : model_(std::move(model)), compile_(std::move(compile)), card_(card), path_(path) {
        any_size_ = std::make_unique<Graph>(compile_(model_), card, path);
    }

    void infer(const Tensors &tensors) override {
        const std::pair<int, int> size = {tensors.width, tensors.height};
        const auto known =
            std::find_if(fixed_.begin(), fixed_.end(), [&](const auto &one) { return one.first == size; });
        try {
            if (known != fixed_.end() && known->second) {
                known->second->run(tensors);
                return;
            }
            any_size_->run(tensors);
        } catch (const ov::Exception &error) {
            throw refused("failed on", path_, error);
        }
        in_a_row_ = size == last_ ? in_a_row_ + 1 : 1;
        last_ = size;
        if (in_a_row_ == kSettled && known == fixed_.end() && model_->is_dynamic()) fix(tensors);
    }

  private:
    // Compile for the size of an inference that the general graph has just done; keep what agrees with its results.
    void fix(const Tensors &done) {
        while (fixed_.size() >= kSizesKept) fixed_.erase(fixed_.begin());
        std::unique_ptr<Graph> graph;
        bool agrees = true;
        try {
            const std::shared_ptr<ov::Model> model = model_->clone();
            std::map<std::string, ov::PartialShape> shapes;
            for (const Port &port : card_.inputs) shapes[port.name] = shape_of(port, done);
            model->reshape(shapes);
            graph = std::make_unique<Graph>(compile_(model), card_, path_);
            std::vector<std::vector<uint8_t>> memory;
            Tensors again = done;
            for (size_t i = 0; i < card_.outputs.size(); ++i) {
                memory.emplace_back(card_.outputs[i].bytes(done.width, done.height));
                again.outputs[i] = memory.back().data();
            }
            graph->run(again);
            // OpenVINO 2026.4 has compiled a graph of fixed size into one that overwrites a tensor still to be read.
            for (size_t i = 0; i < card_.outputs.size(); ++i) {
                agrees = agrees && agree(card_.outputs[i], again.outputs[i], done.outputs[i], memory[i].size());
            }
        } catch (const std::exception &) {
            agrees = false;  // the general graph has just served, and goes on to
        }
        if (!agrees) graph.reset();
        fixed_.emplace_back(std::pair{done.width, done.height}, std::move(graph));
    }

    std::shared_ptr<ov::Model> model_;
    Compile compile_;
    const Card &card_;
    const std::string &path_;
    std::unique_ptr<Graph> any_size_;
    // Width and height -> the graph compiled for them; nullptr where only the general one serves.
    std::vector<std::pair<std::pair<int, int>, std::unique_ptr<Graph>>> fixed_;
    std::pair<int, int> last_;
    int in_a_row_ = 0;
};

// The one core of this process, which goes when the process ends. On CPUs with AMX the CPU plugin gives the thread that
// loads it a stack of its own for signals and unmaps it with the last core (OpenVINO 2026.4): were that core a model's,
// and closed by another thread, the next signal to the first one would be a segmentation fault.
ov::Core &shared_core() {
    static ov::Core core;
    return core;
}

class OpenVinoBackend : public Backend {
  public:
    OpenVinoBackend(const Card &card, const OpenOptions &options) : path_(options.path) {
        const auto compile = [threads = options.threads](const std::shared_ptr<ov::Model> &model) {
            return shared_core().compile_model(
                model, "CPU", ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
                ov::inference_num_threads(threads),
                // CPUs with bfloat16 units would silently compute in it; the quality on the card
                // was measured in float32.
                ov::hint::inference_precision(ov::element::f32),
                // Dark frames produce denormal numbers, which cost 100 times a normal one.
                ov::intel_cpu::denormals_optimization(true));
        };
        try {
            const std::shared_ptr<ov::Model> model = shared_core().read_model(path_);
            streamline(*model);
            lane_ = std::make_unique<OpenVinoLane>(model, compile, card, path_);
        } catch (const ov::Exception &error) {
            throw refused("cannot load", path_, error);
        }
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
        lanes.push_back(std::move(lane_));
        return lanes;
    }

  private:
    std::string path_;
    std::unique_ptr<Lane> lane_;
};

}  // namespace

BackendKind openvino_kind() {
    return {"openvino", [] { return std::string(); },
            [](const Card &card, const OpenOptions &options) -> std::unique_ptr<Backend> {
                return std::make_unique<OpenVinoBackend>(card, options);
            }};
}

}  // namespace derain
