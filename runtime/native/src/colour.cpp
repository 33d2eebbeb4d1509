#include "colour.hpp"

#include "error.hpp"

#include <algorithm>

namespace derain {
namespace {

constexpr int32_t kHalf = 1 << (kFractionBits - 1);

constexpr int32_t fixed(double value) {
    const double scaled = value * (1 << kFractionBits);
    return static_cast<int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
}

constexpr YuvMatrix make(double kr, double kb, bool limited) {
    const double kg = 1 - kr - kb;
    const double luma = limited ? 219.0 / 255.0 : 1.0, chroma = limited ? 224.0 / 255.0 : 1.0;
    const double u = chroma / (2 * (1 - kb)), v = chroma / (2 * (1 - kr));
    return {limited ? 16 : 0,
            fixed(1 / luma),
            fixed(2 * (1 - kr) / chroma),
            fixed(-2 * (1 - kb) * kb / kg / chroma),
            fixed(-2 * (1 - kr) * kr / kg / chroma),
            fixed(2 * (1 - kb) / chroma),
            {fixed(luma * kr), fixed(luma * kg), fixed(luma * kb)},
            {fixed(-u * kr), fixed(-u * kg), fixed(u * (1 - kb))},
            {fixed(v * (1 - kr)), fixed(-v * kg), fixed(-v * kb)}};
}

constexpr YuvMatrix kMatrices[] = {
    make(0.299, 0.114, true),     // DERAIN_COLOUR_BT601_LIMITED
    make(0.299, 0.114, false),    // DERAIN_COLOUR_BT601_FULL
    make(0.2126, 0.0722, true),   // DERAIN_COLOUR_BT709_LIMITED
    make(0.2126, 0.0722, false),  // DERAIN_COLOUR_BT709_FULL
};

inline uint8_t level(int32_t fixed_point) {
    return static_cast<uint8_t>(std::clamp(fixed_point >> kFractionBits, 0, 255));
}

// The compiler makes a loop of its own for each order and step, and vectorises those it can.
template <bool Bgr, int Step>
void to_rgb(const YuvMatrix &m, const uint8_t *y, const uint8_t *u, const uint8_t *v, int width, uint8_t *out) {
    constexpr int red = Bgr ? 2 : 0, blue = Bgr ? 0 : 2;
    const auto pixel = [&](int x, int32_t r, int32_t g, int32_t b) {
        // Below black counts as black, as OpenCV has it.
        const int32_t luma = std::max(y[x] - m.y_offset, 0) * m.luma_gain;
        out[3 * x + red] = level(luma + r);
        out[3 * x + 1] = level(luma + g);
        out[3 * x + blue] = level(luma + b);
    };
    for (int c = 0; c < (width + 1) / 2; ++c) {
        const int32_t cu = u[c * Step] - 128, cv = v[c * Step] - 128;
        const int32_t r = m.red_v * cv + kHalf, b = m.blue_u * cu + kHalf;
        const int32_t g = m.green_u * cu + m.green_v * cv + kHalf;
        pixel(2 * c, r, g, b);
        if (2 * c + 1 < width) pixel(2 * c + 1, r, g, b);
    }
}

inline int32_t weigh(const int32_t (&weights)[3], const uint8_t *pixel, int red) {
    return weights[0] * pixel[red] + weights[1] * pixel[1] + weights[2] * pixel[2 - red];
}

}  // namespace

const YuvMatrix &yuv_matrix(int32_t colour) {
    if (colour < DERAIN_COLOUR_BT601_LIMITED || colour > DERAIN_COLOUR_BT709_FULL) {
        throw Error(DERAIN_BAD_FRAME, "The frame has the colour " + std::to_string(colour), "a derain_colour, 0 to 3",
                    "Set it with derain_frame_init");
    }
    return kMatrices[colour];
}

void yuv_row_to_rgb(const YuvMatrix &matrix, const uint8_t *y, const uint8_t *u, const uint8_t *v, int chroma_step,
                    int width, bool bgr, uint8_t *out) {
    if (chroma_step == 2) {
        bgr ? to_rgb<true, 2>(matrix, y, u, v, width, out) : to_rgb<false, 2>(matrix, y, u, v, width, out);
    } else {
        bgr ? to_rgb<true, 1>(matrix, y, u, v, width, out) : to_rgb<false, 1>(matrix, y, u, v, width, out);
    }
}

void rgb_row_to_luma(const YuvMatrix &matrix, const uint8_t *row, bool bgr, int width, uint8_t *y) {
    const int red = bgr ? 2 : 0;
    const int32_t offset = (matrix.y_offset << kFractionBits) + kHalf;
    for (int x = 0; x < width; ++x) y[x] = level(weigh(matrix.y, row + 3 * x, red) + offset);
}

void rgb_row_to_chroma(const YuvMatrix &matrix, const uint8_t *row, bool bgr, int width, uint8_t *u, uint8_t *v,
                       int chroma_step) {
    const int red = bgr ? 2 : 0;
    constexpr int32_t offset = (128 << kFractionBits) + kHalf;
    for (int c = 0; c < (width + 1) / 2; ++c) {
        u[c * chroma_step] = level(weigh(matrix.u, row + 6 * c, red) + offset);
        v[c * chroma_step] = level(weigh(matrix.v, row + 6 * c, red) + offset);
    }
}

}  // namespace derain
