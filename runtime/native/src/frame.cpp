#include "frame.hpp"

#include "colour.hpp"
#include "error.hpp"
#include "pixels.hpp"
#include "structs.hpp"

#include <algorithm>
#include <cstring>
#include <string>

namespace derain {
namespace {

constexpr int kMaxSide = 65536;
constexpr int64_t kMaxPixels = 1 << 28;

}  // namespace

Frame::Frame(const derain_frame *given, const char *role) {
    const std::string name = std::string("The ") + role + " frame";
    if (given == nullptr) throw Error(DERAIN_BAD_ARGUMENT, name + " is NULL", "a derain_frame");
    const derain_frame frame = take_struct(given, derain_frame{}, "derain_frame");
    format_ = frame.format;
    colour_ = frame.colour;
    width_ = frame.width;
    height_ = frame.height;
    timestamp_ = frame.timestamp;
    if (width_ < 1 || height_ < 1 || width_ > kMaxSide || height_ > kMaxSide ||
        int64_t{width_} * height_ > kMaxPixels) {
        throw Error(DERAIN_BAD_FRAME,
                    name + " has " + std::to_string(width_) + " x " + std::to_string(height_) + " pixels",
                    "1 to 65536 a side and at most 268435456 in all");
    }
    for (int plane = 0; plane < 3; ++plane) {
        plane_[plane] = static_cast<uint8_t *>(frame.plane[plane]);
        stride_[plane] = frame.stride[plane];
    }
    const int half_width = (width_ + 1) / 2, half_height = (height_ + 1) / 2;
    switch (format_) {
        case DERAIN_FORMAT_BGR:
        case DERAIN_FORMAT_RGB: check_plane(0, width_, height_, 3, role); break;
        case DERAIN_FORMAT_BGRA: check_plane(0, width_, height_, 4, role); break;
        case DERAIN_FORMAT_NV12:
            check_plane(0, width_, height_, 1, role);
            check_plane(1, half_width, half_height, 2, role);
            yuv_matrix(colour_);
            break;
        case DERAIN_FORMAT_I420:
            check_plane(0, width_, height_, 1, role);
            check_plane(1, half_width, half_height, 1, role);
            check_plane(2, half_width, half_height, 1, role);
            yuv_matrix(colour_);
            break;
        case DERAIN_FORMAT_RGB_PLANAR_F32:
            for (int plane = 0; plane < 3; ++plane) check_plane(plane, width_, height_, sizeof(float), role);
            break;
        default:
            throw Error(DERAIN_BAD_ARGUMENT, name + " has the format " + std::to_string(format_),
                        "a derain_format, 1 to 6", "Begin with derain_frame_init");
    }
}

void Frame::check_plane(int plane, int plane_width, int plane_height, size_t pixel_bytes, const char *role) {
    const auto describe = [&] { return "Plane " + std::to_string(plane) + " of the " + role + " frame"; };
    const size_t row_bytes = static_cast<size_t>(plane_width) * pixel_bytes;
    if (plane_[plane] == nullptr) throw Error(DERAIN_BAD_FRAME, describe() + " is NULL", "the address of its pixels");
    if (stride_[plane] == 0) stride_[plane] = row_bytes;
    // Sides are at most 2^16, so this bound keeps every address computed later within the address space.
    constexpr size_t max_stride = size_t{1} << 31;
    if (stride_[plane] < row_bytes || stride_[plane] > max_stride) {
        throw Error(DERAIN_BAD_FRAME, describe() + " has a stride of " + std::to_string(stride_[plane]) + " bytes",
                    std::to_string(row_bytes) + " or more for its " + std::to_string(plane_width) + " pixels");
    }
    const auto address = reinterpret_cast<uintptr_t>(plane_[plane]);
    size_[plane] = stride_[plane] * static_cast<size_t>(plane_height - 1) + row_bytes;
    if (size_[plane] > UINTPTR_MAX - address) {
        throw Error(DERAIN_BAD_FRAME, describe() + " goes past the end of the address space", "its real address");
    }
    if (format_ == DERAIN_FORMAT_RGB_PLANAR_F32 &&
        (address % sizeof(float) != 0 || stride_[plane] % sizeof(float) != 0)) {
        throw Error(DERAIN_BAD_FRAME, describe() + " is not aligned to 4 bytes", "float planes and strides that are");
    }
    planes_ = plane + 1;
}

bool Frame::is_packed(bool bgr) const {
    const int32_t wanted = bgr ? DERAIN_FORMAT_BGR : DERAIN_FORMAT_RGB;
    return format_ == wanted && stride_[0] == 3 * static_cast<size_t>(width_);
}

bool Frame::is_packed_nv12() const {
    const auto luma = static_cast<size_t>(width_), chroma = 2 * ((luma + 1) / 2);
    return format_ == DERAIN_FORMAT_NV12 && stride_[0] == luma && stride_[1] == chroma;
}

bool Frame::overlaps(const Frame &other) const {
    for (int a = 0; a < planes_; ++a) {
        for (int b = 0; b < other.planes_; ++b) {
            const auto mine = reinterpret_cast<uintptr_t>(plane_[a]);
            const auto theirs = reinterpret_cast<uintptr_t>(other.plane_[b]);
            if (mine < theirs + other.size_[b] && theirs < mine + size_[a]) return true;
        }
    }
    return false;
}

void Frame::read_row(int y, bool bgr, uint8_t *out) const {
    const uint8_t *first = row(0, y);
    switch (format_) {
        case DERAIN_FORMAT_BGR:
        case DERAIN_FORMAT_RGB:
            if ((format_ == DERAIN_FORMAT_BGR) == bgr) {
                std::memcpy(out, first, 3 * static_cast<size_t>(width_));
            } else {
                swap_row(first, width_, out);
            }
            break;
        case DERAIN_FORMAT_BGRA: drop_alpha(first, !bgr, width_, out); break;
        case DERAIN_FORMAT_NV12:
            yuv_row_to_rgb(yuv_matrix(colour_), first, row(1, y / 2), row(1, y / 2) + 1, 2, width_, bgr, out);
            break;
        case DERAIN_FORMAT_I420:
            yuv_row_to_rgb(yuv_matrix(colour_), first, row(1, y / 2), row(2, y / 2), 1, width_, bgr, out);
            break;
        default: floats_to_row(float_row(bgr ? 2 : 0, y), float_row(1, y), float_row(bgr ? 0 : 2, y), width_, out);
    }
}

void Frame::write_row(int y, bool bgr, const uint8_t *pixels, const uint8_t *alpha) const {
    uint8_t *first = row(0, y);
    switch (format_) {
        case DERAIN_FORMAT_BGR:
        case DERAIN_FORMAT_RGB:
            if ((format_ == DERAIN_FORMAT_BGR) == bgr) {
                std::memcpy(first, pixels, 3 * static_cast<size_t>(width_));
            } else {
                swap_row(pixels, width_, first);
            }
            break;
        case DERAIN_FORMAT_BGRA: add_alpha(pixels, !bgr, alpha, width_, first); break;
        case DERAIN_FORMAT_NV12:
        case DERAIN_FORMAT_I420: {
            const YuvMatrix &matrix = yuv_matrix(colour_);
            rgb_row_to_luma(matrix, pixels, bgr, width_, first);
            if (y % 2 != 0) break;
            const bool alternate = format_ == DERAIN_FORMAT_NV12;
            uint8_t *u = row(1, y / 2);
            rgb_row_to_chroma(matrix, pixels, bgr, width_, u, alternate ? u + 1 : row(2, y / 2), alternate ? 2 : 1);
            break;
        }
        default:
            for (int plane = 0; plane < 3; ++plane) {
                row_to_floats(pixels + (bgr ? 2 - plane : plane), width_, float_row(plane, y));
            }
    }
}

}  // namespace derain
