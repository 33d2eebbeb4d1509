#include "self_test.hpp"

#include "error.hpp"
#include "half.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace derain {
namespace {

constexpr int64_t kUsualWidth = 384, kUsualHeight = 256;
constexpr const char *kBuildAgain =
    "Build it again with another --level; if it stays, find the layer with derain debug compare";

// dB of the engine's result against the reference's. TF32 and other orders of summation stay above 60, float16 above
// 50; INT8 rounds values that lie between two steps to either one.
double least_psnr(const std::string &precision) {
    return precision == "float32" ? 50 : precision == "float16" ? 42 : 30;
}

std::array<double, 3> colour_at(int x, int y, int width, int height) {
    const double column = x, row = y;
    std::array<double, 3> bgr = {0.35 + 0.23 * std::sin(column / 19), 0.43 + 0.2 * std::cos(row / 13),
                                 0.3 + 0.2 * row / height + 0.1 * column / width};
    const bool shade = y >= height / 3 && y < height / 2 && x >= width / 4 && x < width / 2;
    const double along = column + 0.35 * row;
    const bool streak = std::sin(along * 0.9) > 0.97 && std::sin(row / 5 + along) > 0;
    for (double &level : bgr) level = std::clamp(level * (shade ? 0.5 : 1) + (streak ? 0.28 : 0), 0.0, 1.0);
    return bgr;
}

double element(const Port &port, int x, int y, int channel, int width, int height) {
    const auto bgr = colour_at(x, y, width, height);
    if (port.content == Content::y) return (bgr[0] + bgr[1] + bgr[2]) / 3;
    const auto c = static_cast<size_t>(channel);
    if (port.content == Content::uv) return 0.5 + 0.2 * (bgr[c] - 0.5);
    return port.content == Content::rgb ? bgr[2 - c] : bgr[c];
}

void put(const Port &port, std::vector<uint8_t> &tensor, size_t index, double fraction) {
    const auto value = static_cast<float>(fraction);
    if (port.type == Type::u8) tensor[index] = static_cast<uint8_t>(std::lrint(255 * fraction));
    if (port.type == Type::f32) std::memcpy(&tensor[index * sizeof(value)], &value, sizeof(value));
    if (port.type == Type::f16) {
        const uint16_t half = float_to_half(value);
        std::memcpy(&tensor[index * sizeof(half)], &half, sizeof(half));
    }
}

// A tensor as numbers in [0, 1].
std::vector<double> numbers(const Port &port, const std::vector<uint8_t> &tensor) {
    const size_t size = port.type == Type::u8 ? 1 : port.type == Type::f16 ? 2 : 4;
    std::vector<double> values(tensor.size() / size);
    for (size_t i = 0; i < values.size(); ++i) {
        uint16_t half;
        float value;
        if (port.type == Type::u8) values[i] = tensor[i] / 255.0;
        if (port.type == Type::f16) {
            std::memcpy(&half, &tensor[i * size], size);
            values[i] = static_cast<double>(half_to_float(half));
        }
        if (port.type == Type::f32) {
            std::memcpy(&value, &tensor[i * size], size);
            values[i] = static_cast<double>(value);
        }
    }
    return values;
}

using Outputs = std::vector<std::vector<double>>;

Outputs run(Lane &lane, const Card &card, int width, int height) {
    std::vector<std::vector<uint8_t>> memory;
    for (const Port &port : card.inputs) memory.push_back(fixed_input(port, width, height));
    for (const Port &port : card.outputs) memory.emplace_back(port.bytes(width, height));
    Tensors tensors{width, height, {}, {}};
    for (size_t i = 0; i < card.inputs.size(); ++i) tensors.inputs[i] = memory[i].data();
    for (size_t i = 0; i < card.outputs.size(); ++i) tensors.outputs[i] = memory[card.inputs.size() + i].data();
    lane.infer(tensors);
    Outputs outputs;
    for (size_t i = 0; i < card.outputs.size(); ++i) {
        outputs.push_back(numbers(card.outputs[i], memory[card.inputs.size() + i]));
    }
    return outputs;
}

void require_sane(const Outputs &outputs, const Card &card, const std::string &name) {
    for (size_t i = 0; i < outputs.size(); ++i) {
        const std::string &port = card.outputs[i].name;
        if (!std::all_of(outputs[i].begin(), outputs[i].end(), [](double value) { return std::isfinite(value); })) {
            throw Error(DERAIN_BACKEND, name + " gives values in '" + port + "' that are no numbers (NaN or infinite)",
                        "", kBuildAgain);
        }
        const auto [least, most] = std::minmax_element(outputs[i].begin(), outputs[i].end());
        if (card.outputs[i].content != Content::rain && *least == *most) {
            const std::string colour = *most == 0 ? "black" : "of one colour";
            throw Error(DERAIN_BACKEND, name + " gives a picture that is all " + colour + " for the self-test", "",
                        kBuildAgain);
        }
    }
}

double psnr(const std::vector<double> &found, const std::vector<double> &wanted) {
    double sum = 0;
    for (size_t i = 0; i < found.size(); ++i) sum += (found[i] - wanted[i]) * (found[i] - wanted[i]);
    if (sum == 0) return std::numeric_limits<double>::infinity();
    return -10 * std::log10(sum / static_cast<double>(found.size()));
}

}  // namespace

std::pair<int, int> picture_size(const Profile &profile) {
    const auto side = [&](int64_t usual, size_t axis) {
        return static_cast<int>(std::min(std::max(usual, profile.min[axis]), profile.max[axis]));
    };
    return {side(kUsualWidth, 2), side(kUsualHeight, 1)};
}

std::vector<uint8_t> fixed_input(const Port &port, int width, int height) {
    std::vector<uint8_t> tensor(port.bytes(width, height));
    const bool halved = port.content == Content::uv;
    const int columns = halved ? width / 2 : width, rows = halved ? height / 2 : height;
    const int channels = port.content == Content::y ? 1 : halved ? 2 : 3;
    for (int y = 0; y < rows; ++y) {
        for (int x = 0; x < columns; ++x) {
            for (int c = 0; c < channels; ++c) {
                const int index =
                    port.layout == Layout::nchw ? (c * rows + y) * columns + x : (y * columns + x) * channels + c;
                put(port, tensor, static_cast<size_t>(index), element(port, x, y, c, columns, rows));
            }
        }
    }
    return tensor;
}

SelfTest self_test(Lane &engine, Lane *reference, const std::string &reference_name, const Card &card,
                   const Profile &profile) {
    const auto [width, height] = picture_size(profile);
    const Outputs found = run(engine, card, width, height);
    require_sane(found, card, "The engine");
    double worst = std::numeric_limits<double>::infinity();
    if (reference == nullptr) return {reference_name, worst, width, height};
    const Outputs wanted = run(*reference, card, width, height);
    require_sane(wanted, card, reference_name);
    for (size_t i = 0; i < found.size(); ++i) {
        const double level = psnr(found[i], wanted[i]), least = least_psnr(card.precision);
        if (level < least) {
            throw Error(DERAIN_BACKEND,
                        "The engine's '" + card.outputs[i].name + "' is " + std::to_string(level) + " dB against " +
                            reference_name,
                        "at least " + std::to_string(static_cast<int>(least)) + " dB for " + card.precision,
                        kBuildAgain);
        }
        worst = std::min(worst, level);
    }
    return {reference_name, worst, width, height};
}

SelfTest self_test_against_cpu(Lane &engine, const Card &card, const Profile &profile, const std::string &onnx,
                               int threads) {
    for (const char *name : {"onnxruntime", "openvino"}) {
        for (const BackendKind &kind : backend_kinds()) {
            if (onnx.empty() || std::string(name) != kind.name || !kind.unavailable().empty()) continue;
            const auto backend = kind.open(card, {onnx, "", threads, 1, [](derain_log_level, const std::string &) {}});
            return self_test(engine, backend->lanes().front().get(), backend->device(), card, profile);
        }
    }
    const std::string why = onnx.empty() ? "none: the model file is not beside the engine"
                                         : "none: this libderain has no backend for the CPU";
    return self_test(engine, nullptr, why, card, profile);
}

}  // namespace derain
