// What the libFuzzer programs and the mutation test do with one input. Nothing but Error may be thrown.
#pragma once

#include "card.hpp"
#include "engine_record.hpp"
#include "error.hpp"
#include "frame.hpp"

#include <unistd.h>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

inline void try_model_file(const uint8_t *data, size_t size) {
    static const std::string path = "/tmp/derain-fuzz." + std::to_string(getpid()) + ".onnx";
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char *>(data), static_cast<std::streamsize>(size));
    try {
        derain::read_card(path);
    } catch (const derain::Error &) {
    }
    std::remove(path.c_str());
}

inline void try_card(const uint8_t *data, size_t size) {
    try {
        derain::parse_card(std::string(reinterpret_cast<const char *>(data), size), "a fuzzed card");
    } catch (const derain::Error &) {
    }
}

inline void try_record(const uint8_t *data, size_t size) {
    try {
        derain::parse_record(std::string(reinterpret_cast<const char *>(data), size), "a fuzzed record");
    } catch (const derain::Error &) {
    }
}

// A frame descriptor of arbitrary numbers, whose planes are made as large as an accepted descriptor says they are:
// reading and writing every row must then stay inside.
inline void try_frame(const uint8_t *data, size_t size) {
    derain_frame given;
    derain_frame_init(&given, DERAIN_FORMAT_BGR, 1, 1);
    struct {
        int32_t format, colour, width, height;
        uint64_t stride[3];
    } numbers{};
    std::memcpy(&numbers, data, size < sizeof(numbers) ? size : sizeof(numbers));
    given.format = numbers.format;
    given.colour = numbers.colour;
    given.width = numbers.width;
    given.height = numbers.height;
    std::vector<std::vector<float>> planes;
    for (size_t plane = 0; plane < 3; ++plane) given.stride[plane] = numbers.stride[plane];
    alignas(float) static uint8_t probe[16];
    for (void *&plane : given.plane) plane = probe;
    try {
        derain::Frame checked(&given, "rainy");
        if (int64_t{given.width} * given.height > 1 << 16) return;
        for (size_t plane = 0; plane < 3; ++plane) {
            const bool chroma = plane > 0 && (given.format == DERAIN_FORMAT_NV12 || given.format == DERAIN_FORMAT_I420);
            const auto rows = static_cast<size_t>(chroma ? (given.height + 1) / 2 : given.height);
            // 4 bytes a pixel are the most that any format has in one plane.
            const size_t stride = given.stride[plane] != 0 ? given.stride[plane] : 4 * static_cast<size_t>(given.width);
            if (rows * stride > size_t{1} << 24) return;
            planes.emplace_back(rows * stride / sizeof(float) + 1);
            given.plane[plane] = planes.back().data();
        }
        derain::Frame frame(&given, "rainy");
        std::vector<uint8_t> row(3 * static_cast<size_t>(given.width));
        for (int y = 0; y < frame.height(); ++y) {
            frame.read_row(y, y % 2 == 0, row.data());
            frame.write_row(y, y % 2 == 0, row.data(), nullptr);
        }
    } catch (const derain::Error &) {
    }
}
