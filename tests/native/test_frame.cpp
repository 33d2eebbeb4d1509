// Frames: what is refused, and the colour formulas against their definition in floating point.
#include "check.hpp"
#include "colour.hpp"
#include "error.hpp"
#include "frame.hpp"
#include "half.hpp"
#include "pixels.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

using derain::Error;
using derain::Frame;

namespace {

derain_frame frame_of(derain_format format, int width, int height, void *memory) {
    derain_frame frame;
    derain_frame_init(&frame, format, width, height);
    for (void *&plane : frame.plane) plane = memory;
    return frame;
}

std::string refusal(const derain_frame &frame, derain_status status) {
    try {
        const Frame accepted(&frame, "rainy");
    } catch (const Error &error) {
        CHECK_EQUAL(error.status(), status);
        return error.what();
    }
    std::cerr << "a frame that cannot be used was accepted\n";
    std::exit(1);
}

void refuses_frames_that_would_read_foreign_memory() {
    alignas(float) uint8_t memory[64] = {};
    derain_frame frame = frame_of(DERAIN_FORMAT_BGR, 4, 4, memory);
    for (const int side : {0, -1, 65537, std::numeric_limits<int>::max(), std::numeric_limits<int>::min()}) {
        frame.width = side;
        CHECK(contains(refusal(frame, DERAIN_BAD_FRAME), "pixels"));
    }
    frame.width = frame.height = 65536;
    CHECK(contains(refusal(frame, DERAIN_BAD_FRAME), "at most 268435456"));
    frame = frame_of(DERAIN_FORMAT_BGR, 4, 4, memory);
    for (const size_t stride : {size_t{1}, size_t{11}, (size_t{1} << 31) + 1, SIZE_MAX, SIZE_MAX / 4 + 1}) {
        frame.stride[0] = stride;
        CHECK(contains(refusal(frame, DERAIN_BAD_FRAME), "stride"));
    }
    frame.stride[0] = size_t{1} << 31;
    frame.plane[0] = reinterpret_cast<void *>(UINTPTR_MAX - 100);
    CHECK(contains(refusal(frame, DERAIN_BAD_FRAME), "address space"));
    for (const int format : {0, 7, -1, std::numeric_limits<int>::max()}) {
        frame.format = format;
        CHECK(contains(refusal(frame, DERAIN_BAD_ARGUMENT), "format"));
    }
    frame = frame_of(DERAIN_FORMAT_I420, 4, 4, memory);
    frame.plane[2] = nullptr;
    CHECK(contains(refusal(frame, DERAIN_BAD_FRAME), "Plane 2 of the rainy frame is NULL"));
    frame = frame_of(DERAIN_FORMAT_NV12, 4, 4, memory);
    frame.colour = 4;
    CHECK(contains(refusal(frame, DERAIN_BAD_FRAME), "colour 4"));
    frame = frame_of(DERAIN_FORMAT_RGB_PLANAR_F32, 2, 2, memory + 1);
    CHECK(contains(refusal(frame, DERAIN_BAD_FRAME), "aligned"));
    frame.struct_size = 8;
    CHECK(contains(refusal(frame, DERAIN_BAD_ARGUMENT), "derain_frame_init"));
}

int clamp_round(double value) {
    return static_cast<int>(std::lround(std::clamp(value, 0.0, 255.0)));
}

// The formulas of colour.hpp, with real numbers, for every 5th triple.
void colours_follow_their_formulas() {
    for (const int colour : {0, 1, 2, 3}) {
        const bool limited = colour % 2 == 0;
        const double kr = colour < 2 ? 0.299 : 0.2126, kb = colour < 2 ? 0.114 : 0.0722, kg = 1 - kr - kb;
        const double offset = limited ? 16 : 0, luma = limited ? 219.0 / 255 : 1, chroma = limited ? 224.0 / 255 : 1;
        const derain::YuvMatrix &matrix = derain::yuv_matrix(colour);
        for (int a = 0; a < 256; a += 5) {
            for (int b = 0; b < 256; b += 5) {
                for (int c = 0; c < 256; c += 5) {
                    const uint8_t y = static_cast<uint8_t>(a), u = static_cast<uint8_t>(b), v = static_cast<uint8_t>(c);
                    uint8_t rgb[3];
                    derain::yuv_row_to_rgb(matrix, &y, &u, &v, 1, 1, false, rgb);
                    const double level = std::max(a - offset, 0.0) / luma;
                    const double red = level + 2 * (1 - kr) * (c - 128) / chroma;
                    const double blue = level + 2 * (1 - kb) * (b - 128) / chroma;
                    const double green = (level - kr * red - kb * blue) / kg;
                    CHECK(std::abs(rgb[0] - clamp_round(red)) <= 1);
                    CHECK(std::abs(rgb[1] - clamp_round(green)) <= 1);
                    CHECK(std::abs(rgb[2] - clamp_round(blue)) <= 1);

                    const uint8_t pixel[3] = {y, u, v};  // the same numbers as red, green, blue
                    uint8_t out_y, out_u, out_v;
                    derain::rgb_row_to_luma(matrix, pixel, false, 1, &out_y);
                    derain::rgb_row_to_chroma(matrix, pixel, false, 1, &out_u, &out_v, 1);
                    const double light = kr * a + kg * b + kb * c;
                    CHECK(std::abs(out_y - clamp_round(offset + luma * light)) <= 1);
                    CHECK(std::abs(out_u - clamp_round(128 + chroma * (c - light) / (2 * (1 - kb)))) <= 1);
                    CHECK(std::abs(out_v - clamp_round(128 + chroma * (a - light) / (2 * (1 - kr)))) <= 1);
                }
            }
        }
    }
}

// Long rows are computed many pixels at once; each pixel must be what it is alone, whatever the row's length.
void long_rows_are_single_pixels() {
    constexpr int longest = 1101;
    const derain::YuvMatrix &matrix = derain::yuv_matrix(DERAIN_COLOUR_BT709_LIMITED);
    std::vector<uint8_t> y(longest), chroma(2 * longest), rgb(3 * longest), u(longest), v(longest), luma(longest);
    std::vector<uint8_t> wide(4 * longest, 7), narrow(3 * longest), swapped(3 * longest);
    std::vector<float> plane(3 * longest);
    for (size_t i = 0; i < y.size(); ++i) y[i] = static_cast<uint8_t>(i * 37);
    for (size_t i = 0; i < chroma.size(); ++i) chroma[i] = static_cast<uint8_t>(i * i * 11);
    for (const int width : {1, 2, 3, 15, 16, 17, 31, 33, 511, 512, 513, 514, 1023, 1024, 1025, longest}) {
        for (const bool bgr : {false, true}) {
            for (const int step : {1, 2}) {
                derain::yuv_row_to_rgb(matrix, y.data(), chroma.data(), chroma.data() + 1, step, width, bgr,
                                       rgb.data());
                derain::rgb_row_to_luma(matrix, rgb.data(), bgr, width, luma.data());
                derain::rgb_row_to_chroma(matrix, rgb.data(), bgr, width, u.data(), v.data(), step);
                for (int x = 0; x < width; ++x) {
                    uint8_t pixel[3], one, other;
                    const uint8_t *at = chroma.data() + x / 2 * step;
                    derain::yuv_row_to_rgb(matrix, &y[x], at, at + 1, 1, 1, bgr, pixel);
                    CHECK(std::equal(pixel, pixel + 3, &rgb[3 * x]));
                    derain::rgb_row_to_luma(matrix, &rgb[3 * x], bgr, 1, &one);
                    CHECK_EQUAL(+luma[x], +one);
                    if (x % 2 != 0) continue;
                    derain::rgb_row_to_chroma(matrix, &rgb[3 * x], bgr, 1, &one, &other, 1);
                    CHECK_EQUAL(+u[x / 2 * step], +one);
                    CHECK_EQUAL(+v[x / 2 * step], +other);
                }
            }
            derain::add_alpha(rgb.data(), bgr, nullptr, width, wide.data());
            derain::drop_alpha(wide.data(), bgr, width, narrow.data());
            CHECK(std::equal(narrow.begin(), narrow.begin() + 3 * width, rgb.begin()));
            for (int x = 0; x < width; ++x) {
                CHECK_EQUAL(+wide[4 * x + (bgr ? 2 : 0)], +rgb[3 * x]);
                CHECK_EQUAL(+wide[4 * x + 3], 255);
                wide[4 * x + 3] = static_cast<uint8_t>(x);
            }
            derain::add_alpha(rgb.data(), !bgr, wide.data(), width, wide.data());
            derain::drop_alpha(wide.data(), bgr, width, narrow.data());
            derain::swap_row(rgb.data(), width, swapped.data());
            CHECK(std::equal(narrow.begin(), narrow.begin() + 3 * width, swapped.begin()));
            for (int x = 0; x < width; ++x) CHECK_EQUAL(+wide[4 * x + 3], x % 256);
        }
        for (int p = 0; p < 3; ++p) derain::row_to_floats(rgb.data() + p, width, plane.data() + p * longest);
        derain::floats_to_row(&plane[0], &plane[longest], &plane[2 * longest], width, narrow.data());
        CHECK(std::equal(narrow.begin(), narrow.begin() + 3 * width, rgb.begin()));
    }
}

// Rows beyond the frame's own bytes stay untouched, for odd sizes and padded strides too.
void writes_only_its_own_bytes() {
    const uint8_t row[7 * 3] = {};
    for (const auto format : {DERAIN_FORMAT_BGR, DERAIN_FORMAT_RGB, DERAIN_FORMAT_BGRA, DERAIN_FORMAT_NV12,
                              DERAIN_FORMAT_I420, DERAIN_FORMAT_RGB_PLANAR_F32}) {
        constexpr int width = 7, height = 5;
        constexpr size_t stride = 64, plane_bytes = stride * height;
        std::vector<float> memory(3 * plane_bytes / sizeof(float));
        auto *bytes = reinterpret_cast<uint8_t *>(memory.data());
        std::memset(bytes, 0xA5, 3 * plane_bytes);
        derain_frame given = frame_of(format, width, height, bytes);
        for (size_t plane = 0; plane < 3; ++plane) {
            given.plane[plane] = bytes + plane * plane_bytes;
            given.stride[plane] = stride;
        }
        const Frame frame(&given, "clean");
        for (int y = 0; y < height; ++y) frame.write_row(y, true, row, nullptr);
        const size_t bytes_of[7][3] = {{}, {21}, {21}, {28}, {7, 8}, {7, 4, 4}, {28, 28, 28}};
        const bool halved = format == DERAIN_FORMAT_NV12 || format == DERAIN_FORMAT_I420;
        for (size_t at = 0; at < 3 * plane_bytes; ++at) {
            const size_t plane = at / plane_bytes, y = at % plane_bytes / stride, x = at % stride;
            const size_t rows = plane > 0 && halved ? 3 : 5;
            const bool inside = y < rows && x < bytes_of[format][plane];
            CHECK(inside ? bytes[at] != 0xA5 : bytes[at] == 0xA5);
        }
    }
}

void floats_become_levels_as_in_numpy() {
    CHECK_EQUAL(+derain::rounded_level(127.5F), 128);
    CHECK_EQUAL(+derain::rounded_level(126.5F), 126);
    CHECK_EQUAL(+derain::rounded_level(-3.0F), 0);
    CHECK_EQUAL(+derain::rounded_level(1e30F), 255);
    CHECK_EQUAL(+derain::rounded_level(std::numeric_limits<float>::quiet_NaN()), 0);
}

// Every half there and back; halfway numbers between two of them go to the even one.
void halves_are_those_of_ieee_754() {
    using derain::float_to_half;
    using derain::half_to_float;
    CHECK_EQUAL(half_to_float(0x3C00), 1.0F);
    CHECK_EQUAL(half_to_float(0x3555), 0.333251953125F);
    CHECK_EQUAL(half_to_float(0x7BFF), 65504.0F);
    CHECK_EQUAL(half_to_float(0x0001), 0x1p-24F);
    CHECK(std::isinf(half_to_float(0xFC00)) && half_to_float(0xFC00) < 0);
    CHECK(std::isnan(half_to_float(0x7E01)) && std::isnan(half_to_float(float_to_half(NAN))));
    for (uint32_t bits = 0; bits < 0x7C00; ++bits) {
        const auto half = static_cast<uint16_t>(bits);
        const float value = half_to_float(half), next = half_to_float(static_cast<uint16_t>(bits + 1));
        CHECK_EQUAL(float_to_half(value), half);
        CHECK_EQUAL(float_to_half(-value), half | 0x8000);
        if (bits == 0x7BFF) break;
        const float middle = (value + next) / 2;
        CHECK_EQUAL(float_to_half(middle), bits % 2 == 0 ? bits : bits + 1);
        CHECK_EQUAL(float_to_half(std::nextafter(middle, 0.0F)), bits);
        CHECK_EQUAL(float_to_half(std::nextafter(middle, 1e6F)), bits + 1);
    }
    CHECK_EQUAL(float_to_half(65519.99F), 0x7BFF);
    CHECK_EQUAL(float_to_half(65520.0F), 0x7C00);
    CHECK_EQUAL(float_to_half(1e30F), 0x7C00);
}

}  // namespace

int main() {
    halves_are_those_of_ieee_754();
    refuses_frames_that_would_read_foreign_memory();
    colours_follow_their_formulas();
    long_rows_are_single_pixels();
    writes_only_its_own_bytes();
    floats_become_levels_as_in_numpy();
}
