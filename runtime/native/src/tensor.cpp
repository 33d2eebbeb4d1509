#include "tensor.hpp"

#include "colour.hpp"
#include "half.hpp"
#include "pixels.hpp"

#include <cstring>

namespace derain {
namespace {

// 8 bits to [0, 1], bit for bit as the Python runtime computes it.
inline float fraction_of(uint8_t level) {
    return static_cast<float>(level) * (1.0F / 255.0F);
}

// The elements of a tensor as numbers in [0, 1].
struct Float {
    using Element = float;
    static Element from(float value) { return value; }
    static float to(Element value) { return value; }
    static uint8_t level(Element value) { return rounded_level(value * 255.0F); }
};
struct Half {
    using Element = uint16_t;
    static Element from(float value) { return float_to_half(value); }
    static float to(Element value) { return half_to_float(value); }
    // NumPy rounds the product to a half before it is rounded to a level.
    static uint8_t level(Element value) {
        return rounded_level(half_to_float(float_to_half(half_to_float(value) * 255.0F)));
    }
};

// Where pixel (channel, y, 0) of a picture is, and how far the next pixel is, in elements.
struct Walk {
    size_t start;
    size_t step;
};

Walk walk(const Port &port, int width, int height, int y, int channel) {
    const auto w = static_cast<size_t>(width), h = static_cast<size_t>(height);
    const auto row = static_cast<size_t>(y), c = static_cast<size_t>(channel);
    if (port.layout == Layout::nhwc) return {row * w * 3 + c, 3};
    return {(c * h + row) * w, 1};
}

// Calls `visit` with Float or Half, or not at all for 8 bits.
template <typename Visit>
void with_floats(Type type, Visit visit) {
    if (type == Type::f32) visit(Float{});
    if (type == Type::f16) visit(Half{});
}

// Rows of float planes, the usual form of float tensors, have faster functions than those for any form.
bool has_float_planes(const Port &port) {
    return port.type == Type::f32 && port.layout == Layout::nchw;
}

void put_row(const Port &port, void *tensor, int width, int height, int y, const uint8_t *row) {
    if (has_float_planes(port)) {
        for (int channel = 0; channel < 3; ++channel) {
            row_to_floats(row + channel, width,
                          static_cast<float *>(tensor) + walk(port, width, height, y, channel).start);
        }
        return;
    }
    for (int channel = 0; channel < 3; ++channel) {
        const Walk to = walk(port, width, height, y, channel);
        const auto count = static_cast<size_t>(width), first = static_cast<size_t>(channel);
        if (port.type == Type::u8) {
            auto *values = static_cast<uint8_t *>(tensor) + to.start;
            for (size_t x = 0; x < count; ++x) values[x * to.step] = row[3 * x + first];
        }
        with_floats(port.type, [&](auto kind) {
            auto *values = static_cast<typename decltype(kind)::Element *>(tensor) + to.start;
            for (size_t x = 0; x < count; ++x) values[x * to.step] = kind.from(fraction_of(row[3 * x + first]));
        });
    }
}

// A row of a picture as 8-bit pixels.
void take_row(const Port &port, const void *tensor, int width, int height, int y, bool bgr, uint8_t *out) {
    if (has_float_planes(port)) {
        const auto *values = static_cast<const float *>(tensor);
        const auto plane = [&](int channel) {
            return values + walk(port, width, height, y, port.is_bgr() == bgr ? channel : 2 - channel).start;
        };
        return floats_to_row(plane(0), plane(1), plane(2), width, out);
    }
    for (int channel = 0; channel < 3; ++channel) {
        const Walk from = walk(port, width, height, y, port.is_bgr() == bgr ? channel : 2 - channel);
        const auto count = static_cast<size_t>(width), first = static_cast<size_t>(channel);
        if (port.type == Type::u8) {
            const auto *values = static_cast<const uint8_t *>(tensor) + from.start;
            for (size_t x = 0; x < count; ++x) out[3 * x + first] = values[x * from.step];
        }
        with_floats(port.type, [&](auto kind) {
            const auto *values = static_cast<const typename decltype(kind)::Element *>(tensor) + from.start;
            for (size_t x = 0; x < count; ++x) out[3 * x + first] = kind.level(values[x * from.step]);
        });
    }
}

// Float frames and float tensors meet without a way through 8 bits.
bool float_to_float(const Frame &frame, const Port &port) {
    return frame.format() == DERAIN_FORMAT_RGB_PLANAR_F32 && port.type != Type::u8;
}

// copy(pixel of the frame, index of the same pixel in the tensor)
template <typename Copy>
void each_float(const Frame &frame, const Port &port, Copy copy) {
    for (int plane = 0; plane < 3; ++plane) {
        for (int y = 0; y < frame.height(); ++y) {
            const Walk at = walk(port, frame.width(), frame.height(), y, port.is_bgr() ? 2 - plane : plane);
            float *row = frame.float_row(plane, y);
            for (size_t x = 0; x < static_cast<size_t>(frame.width()); ++x) copy(row[x], at.start + x * at.step);
        }
    }
}

// The planes of NV12 tensors as a frame.
Frame nv12_frame(const Card &card, void *const *planes, int width, int height) {
    derain_frame frame;
    derain_frame_init(&frame, DERAIN_FORMAT_NV12, width, height);
    frame.colour = card.colour;
    frame.plane[0] = planes[0];
    frame.plane[1] = planes[1];
    return {&frame, "model's"};
}

void load_nv12(const Frame &frame, const Card &card, void *const *inputs, std::vector<uint8_t> &scratch) {
    const Frame planes = nv12_frame(card, inputs, frame.width(), frame.height());
    const auto width = static_cast<size_t>(frame.width());
    const bool same_colours = frame.colour() == card.colour;
    const bool nv12 = same_colours && frame.format() == DERAIN_FORMAT_NV12;
    const bool i420 = same_colours && frame.format() == DERAIN_FORMAT_I420;
    scratch.resize(3 * width);
    for (int y = 0; y < frame.height(); ++y) {
        if (!nv12 && !i420) {
            frame.read_row(y, true, scratch.data());
            planes.write_row(y, true, scratch.data(), nullptr);
            continue;
        }
        std::memcpy(planes.row(0, y), frame.row(0, y), width);
        if (y % 2 != 0) continue;
        uint8_t *uv = planes.row(1, y / 2);
        if (nv12) {
            std::memcpy(uv, frame.row(1, y / 2), width);
        } else {
            const uint8_t *u = frame.row(1, y / 2), *v = frame.row(2, y / 2);
            for (size_t x = 0; x < width / 2; ++x) {
                uv[2 * x] = u[x];
                uv[2 * x + 1] = v[x];
            }
        }
    }
}

// A row of the input tensors as 8-bit BGR pixels.
void input_row(const Card &card, const void *const *inputs, int width, int height, int y, uint8_t *out) {
    if (!card.takes_nv12()) return take_row(card.frame(), inputs[0], width, height, y, true, out);
    const auto stride = static_cast<size_t>(width);
    const uint8_t *luma = static_cast<const uint8_t *>(inputs[0]) + static_cast<size_t>(y) * stride;
    const uint8_t *chroma = static_cast<const uint8_t *>(inputs[1]) + static_cast<size_t>(y / 2) * stride;
    yuv_row_to_rgb(yuv_matrix(card.colour), luma, chroma, chroma + 1, 2, width, true, out);
}

}  // namespace

bool is_input(const Frame &frame, const Card &card) {
    if (!card.takes_nv12()) return card.frame().is_interleaved_u8() && frame.is_packed(card.frame().is_bgr());
    return frame.is_packed_nv12() && frame.colour() == card.colour;
}

void load_inputs(const Frame &frame, const Card &card, void *const *inputs, std::vector<uint8_t> &scratch) {
    if (card.takes_nv12()) return load_nv12(frame, card, inputs, scratch);
    const Port &port = card.frame();
    void *tensor = inputs[0];
    if (float_to_float(frame, port)) {
        with_floats(port.type, [&](auto kind) {
            auto *values = static_cast<typename decltype(kind)::Element *>(tensor);
            each_float(frame, port, [&](float pixel, size_t index) { values[index] = kind.from(pixel); });
        });
        return;
    }
    const int width = frame.width(), height = frame.height();
    const size_t row_bytes = 3 * static_cast<size_t>(width);
    scratch.resize(row_bytes);
    for (int y = 0; y < height; ++y) {
        if (port.is_interleaved_u8()) {
            frame.read_row(y, port.is_bgr(), static_cast<uint8_t *>(tensor) + static_cast<size_t>(y) * row_bytes);
        } else {
            frame.read_row(y, port.is_bgr(), scratch.data());
            put_row(port, tensor, width, height, y, scratch.data());
        }
    }
}

void rain_row(const Port &port, const void *tensor, int width, int y, float *out) {
    const size_t start = static_cast<size_t>(y) * static_cast<size_t>(width);
    with_floats(port.type, [&](auto kind) {
        const auto *values = static_cast<const typename decltype(kind)::Element *>(tensor) + start;
        for (size_t x = 0; x < static_cast<size_t>(width); ++x) out[x] = kind.to(values[x]);
    });
}

void store_result(const Result &result, const Effects &effects, const Frame &frame, const Frame &alpha_from,
                  std::vector<uint8_t> &scratch) {
    const Port &port = result.card.derained();
    if (effects.none() && float_to_float(frame, port)) {
        with_floats(port.type, [&](auto kind) {
            const auto *values = static_cast<const typename decltype(kind)::Element *>(result.clean);
            each_float(frame, port, [&](float &pixel, size_t index) { pixel = kind.to(values[index]); });
        });
        return;
    }
    const int width = frame.width(), height = frame.height();
    const bool alpha = alpha_from.format() == DERAIN_FORMAT_BGRA;
    const size_t row_bytes = 3 * static_cast<size_t>(width);
    const size_t map_bytes = sizeof(float) * static_cast<size_t>(width);
    scratch.resize(map_bytes + 2 * row_bytes);
    auto *rain = reinterpret_cast<float *>(scratch.data());
    uint8_t *clean = scratch.data() + map_bytes, *rainy = clean + row_bytes;
    const bool direct = effects.none() && port.is_interleaved_u8();
    for (int y = 0; y < height; ++y) {
        const uint8_t *alpha_row = alpha ? alpha_from.row(0, y) : nullptr;
        if (direct) {
            const auto *row = static_cast<const uint8_t *>(result.clean) + static_cast<size_t>(y) * row_bytes;
            frame.write_row(y, port.is_bgr(), row, alpha_row);
            continue;
        }
        take_row(port, result.clean, width, height, y, true, clean);
        if (!effects.none()) {
            input_row(result.card, result.inputs, width, height, y, rainy);
            rain_row(result.card.rain(), result.rain, width, y, rain);
            mix_row(rainy, rain, effects.strength, effects.overlay, width, clean);
        }
        frame.write_row(y, true, clean, alpha_row);
    }
}

}  // namespace derain
