#include "colour.hpp"

#include "error.hpp"
#include "vectorise.hpp"

#include <algorithm>

namespace derain {
namespace {

constexpr int32_t kHalf = 1 << (kFractionBits - 1);
constexpr int kChunk = 512;  // pixels whose chroma is spread at once; an even number

constexpr int16_t fixed(double value) {
    const double scaled = value * (1 << kFractionBits);
    return static_cast<int16_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
}

constexpr YuvMatrix make(double kr, double kb, bool limited) {
    const double kg = 1 - kr - kb;
    const double luma = limited ? 219.0 / 255.0 : 1.0, chroma = limited ? 224.0 / 255.0 : 1.0;
    const double u = chroma / (2 * (1 - kb)), v = chroma / (2 * (1 - kr));
    return {static_cast<int16_t>(limited ? 16 : 0),
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

[[gnu::always_inline]] inline uint8_t level(int32_t fixed_point) {
    const int32_t value = fixed_point >> kFractionBits;
    return static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

// 16 bits times 16 bits to 32, for which every vector unit has instructions.
[[gnu::always_inline]] inline int32_t times(int16_t a, int16_t b) {
    return int32_t{a} * int32_t{b};
}

// How the bytes of a 3-byte pixel follow from luma and two chromas: the first byte has the one, the last the other.
struct Gains {
    int16_t y_offset, luma, first, middle_first, middle_last, last;
};

DERAIN_PIXEL_LOOP void mix_row(const Gains &given, const uint8_t *__restrict y, const uint8_t *__restrict first,
                               const uint8_t *__restrict last, int width, uint8_t *__restrict out) {
    const Gains gains = given;
    for (int x = 0; x < width; ++x) {
        // Below black counts as black, as OpenCV has it.
        const auto above = static_cast<int16_t>(y[x] > gains.y_offset ? y[x] - gains.y_offset : 0);
        const auto a = static_cast<int16_t>(first[x] - 128), b = static_cast<int16_t>(last[x] - 128);
        const int32_t luma = times(above, gains.luma) + kHalf;
        out[3 * x] = level(luma + times(a, gains.first));
        out[3 * x + 1] = level(luma + times(a, gains.middle_first) + times(b, gains.middle_last));
        out[3 * x + 2] = level(luma + times(b, gains.last));
    }
}

// Each chroma twice.
DERAIN_PIXEL_LOOP void spread_row(const uint8_t *__restrict chroma, int step, int pairs, uint8_t *__restrict out) {
    if (step == 1) {
        for (int c = 0; c < pairs; ++c) out[2 * c] = out[2 * c + 1] = chroma[c];
    } else {
        for (int c = 0; c < pairs; ++c) out[2 * c] = out[2 * c + 1] = chroma[2 * c];
    }
}

// One weighted sum a pixel.
DERAIN_PIXEL_LOOP void weigh_row(int16_t w0, int16_t w1, int16_t w2, int32_t offset, const uint8_t *__restrict row,
                                 int width, uint8_t *__restrict out) {
    for (int x = 0; x < width; ++x) {
        out[x] = level(times(row[3 * x], w0) + times(row[3 * x + 1], w1) + times(row[3 * x + 2], w2) + offset);
    }
}

DERAIN_PIXEL_LOOP void keep_every_second(const uint8_t *__restrict from, int step, int pairs, uint8_t *__restrict out) {
    if (step == 1) {
        for (int c = 0; c < pairs; ++c) out[c] = from[2 * c];
    } else {
        for (int c = 0; c < pairs; ++c) out[2 * c] = from[2 * c];
    }
}

void weigh(const int16_t (&rgb)[3], int y_offset, const uint8_t *row, bool bgr, int width, uint8_t *out) {
    weigh_row(rgb[bgr ? 2 : 0], rgb[1], rgb[bgr ? 0 : 2], (y_offset << kFractionBits) + kHalf, row, width, out);
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
    const Gains blue_first = {matrix.y_offset, matrix.luma_gain, matrix.blue_u,
                              matrix.green_u,  matrix.green_v,   matrix.red_v};
    const Gains red_first = {matrix.y_offset, matrix.luma_gain, matrix.red_v,
                             matrix.green_v,  matrix.green_u,   matrix.blue_u};
    const Gains &gains = bgr ? blue_first : red_first;
    uint8_t first[kChunk], last[kChunk];
    for (int x = 0; x < width; x += kChunk) {
        const int count = std::min(kChunk, width - x), pairs = (count + 1) / 2, at = x / 2 * chroma_step;
        spread_row((bgr ? u : v) + at, chroma_step, pairs, first);
        spread_row((bgr ? v : u) + at, chroma_step, pairs, last);
        mix_row(gains, y + x, first, last, count, out + 3 * x);
    }
}

void rgb_row_to_luma(const YuvMatrix &matrix, const uint8_t *row, bool bgr, int width, uint8_t *y) {
    weigh(matrix.y, matrix.y_offset, row, bgr, width, y);
}

void rgb_row_to_chroma(const YuvMatrix &matrix, const uint8_t *row, bool bgr, int width, uint8_t *u, uint8_t *v,
                       int chroma_step) {
    // Every pixel's chroma, and then half of them: that is faster than to take every sixth byte.
    uint8_t all[kChunk];
    for (int x = 0; x < width; x += kChunk) {
        const int count = std::min(kChunk, width - x), pairs = (count + 1) / 2, at = x / 2 * chroma_step;
        weigh(matrix.u, 128, row + 3 * x, bgr, count, all);
        keep_every_second(all, chroma_step, pairs, u + at);
        weigh(matrix.v, 128, row + 3 * x, bgr, count, all);
        keep_every_second(all, chroma_step, pairs, v + at);
    }
}

}  // namespace derain
