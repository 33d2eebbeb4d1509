#include "tensor.hpp"

#include <algorithm>
#include <cstring>

namespace derain {
namespace {

// 8 bits to [0, 1], bit for bit as the Python runtime computes it.
inline float fraction_of(uint8_t level) {
    return static_cast<float>(level) * static_cast<float>(1.0 / 255.0);
}

// Where pixel (channel, y, 0) of a tensor is, and how far the next pixel is, in elements.
struct Walk {
    size_t start;
    size_t step;
};

Walk walk(const PicturePort &port, int width, int height, int y, int channel) {
    const auto w = static_cast<size_t>(width), h = static_cast<size_t>(height);
    const auto row = static_cast<size_t>(y), c = static_cast<size_t>(channel);
    if (port.layout == Layout::nhwc) return {row * w * 3 + c, 3};
    return {(c * h + row) * w, 1};
}

void put_row(const PicturePort &port, void *tensor, int width, int height, int y, const uint8_t *row) {
    for (int channel = 0; channel < 3; ++channel) {
        const Walk to = walk(port, width, height, y, channel);
        const auto count = static_cast<size_t>(width);
        if (port.type == Type::u8) {
            auto *values = static_cast<uint8_t *>(tensor) + to.start;
            for (size_t x = 0; x < count; ++x) values[x * to.step] = row[3 * x + static_cast<size_t>(channel)];
        } else {
            auto *values = static_cast<float *>(tensor) + to.start;
            for (size_t x = 0; x < count; ++x)
                values[x * to.step] = fraction_of(row[3 * x + static_cast<size_t>(channel)]);
        }
    }
}

// Float frames and float tensors meet without a way through 8 bits.
bool float_to_float(const Frame &frame, const PicturePort &port) {
    return frame.format() == DERAIN_FORMAT_RGB_PLANAR_F32 && port.type == Type::f32;
}

template <typename Copy>
void each_float_row(const Frame &frame, const PicturePort &port, Copy copy) {
    for (int plane = 0; plane < 3; ++plane) {
        for (int y = 0; y < frame.height(); ++y) {
            const Walk at = walk(port, frame.width(), frame.height(), y, port.bgr ? 2 - plane : plane);
            float *row = frame.float_row(plane, y);
            for (size_t x = 0; x < static_cast<size_t>(frame.width()); ++x) copy(row[x], at.start + x * at.step);
        }
    }
}

// clean = strength * clean + (1 - strength) * rainy, then red where the rain is; rows of 3-byte pixels, B, G, R.
void apply(const Effects &effects, const uint8_t *rainy, const float *rain, int width, uint8_t *clean) {
    for (int x = 0; x < width; ++x) {
        const float paint = effects.overlay * std::min(std::max(0.0F, rain[x]), 1.0F);
        for (int c = 0; c < 3; ++c) {
            const int i = 3 * x + c;
            const float mixed = static_cast<float>(rainy[i]) +
                                effects.strength * (static_cast<float>(clean[i]) - static_cast<float>(rainy[i]));
            const float painted = mixed + paint * ((c == 2 ? 255.0F : 0.0F) - mixed);
            clean[i] = static_cast<uint8_t>(painted + 0.5F);
        }
    }
}

}  // namespace

void load_tensor(const Frame &frame, const PicturePort &port, void *tensor, std::vector<uint8_t> &scratch) {
    const int width = frame.width(), height = frame.height();
    if (float_to_float(frame, port)) {
        auto *values = static_cast<float *>(tensor);
        each_float_row(frame, port, [values](float &pixel, size_t index) { values[index] = pixel; });
        return;
    }
    const size_t row_bytes = 3 * static_cast<size_t>(width);
    scratch.resize(row_bytes);
    for (int y = 0; y < height; ++y) {
        if (port.is_interleaved_u8()) {
            frame.read_row(y, port.bgr, static_cast<uint8_t *>(tensor) + static_cast<size_t>(y) * row_bytes);
        } else {
            frame.read_row(y, port.bgr, scratch.data());
            put_row(port, tensor, width, height, y, scratch.data());
        }
    }
}

void tensor_row(const PicturePort &port, const void *tensor, int width, int height, int y, bool bgr, uint8_t *out) {
    for (int channel = 0; channel < 3; ++channel) {
        const Walk from = walk(port, width, height, y, port.bgr == bgr ? channel : 2 - channel);
        const auto count = static_cast<size_t>(width);
        if (port.type == Type::u8) {
            const auto *values = static_cast<const uint8_t *>(tensor) + from.start;
            for (size_t x = 0; x < count; ++x) out[3 * x + static_cast<size_t>(channel)] = values[x * from.step];
        } else {
            const auto *values = static_cast<const float *>(tensor) + from.start;
            for (size_t x = 0; x < count; ++x)
                out[3 * x + static_cast<size_t>(channel)] = level_of(values[x * from.step]);
        }
    }
}

void store_result(const Result &result, const Effects &effects, const Frame &frame, const Frame &alpha_from,
                  std::vector<uint8_t> &scratch) {
    const int width = frame.width(), height = frame.height();
    if (effects.none() && float_to_float(frame, result.clean_port)) {
        const auto *values = static_cast<const float *>(result.clean);
        each_float_row(frame, result.clean_port, [values](float &pixel, size_t index) { pixel = values[index]; });
        return;
    }
    const bool alpha = alpha_from.format() == DERAIN_FORMAT_BGRA;
    const size_t row_bytes = 3 * static_cast<size_t>(width);
    scratch.resize(2 * row_bytes);
    uint8_t *clean = scratch.data(), *rainy = scratch.data() + row_bytes;
    const bool direct = effects.none() && result.clean_port.is_interleaved_u8();
    for (int y = 0; y < height; ++y) {
        const uint8_t *alpha_row = alpha ? alpha_from.row(0, y) : nullptr;
        if (direct) {
            const auto *row = static_cast<const uint8_t *>(result.clean) + static_cast<size_t>(y) * row_bytes;
            frame.write_row(y, result.clean_port.bgr, row, alpha_row);
            continue;
        }
        tensor_row(result.clean_port, result.clean, width, height, y, true, clean);
        if (!effects.none()) {
            tensor_row(result.rainy_port, result.rainy, width, height, y, true, rainy);
            apply(effects, rainy, result.rain + static_cast<size_t>(y) * static_cast<size_t>(width), width, clean);
        }
        frame.write_row(y, true, clean, alpha_row);
    }
}

}  // namespace derain
