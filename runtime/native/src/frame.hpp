// A caller's frame after every size, stride and plane was checked, and its rows as 8-bit BGR or RGB pixels.
#pragma once

#include <derain.h>

#include <cstdint>

namespace derain {

class Frame {
  public:
    // Throws Error: DERAIN_BAD_ARGUMENT for what cannot be a frame, DERAIN_BAD_FRAME for one that cannot be used.
    // `role` ("rainy", "clean") is for messages. Needs memory for the pixels only when rows are read or written.
    Frame(const derain_frame *frame, const char *role);

    int width() const { return width_; }
    int height() const { return height_; }
    int32_t format() const { return format_; }
    int32_t colour() const { return colour_; }
    int64_t timestamp() const { return timestamp_; }

    // Whether the frame is one block of 3-byte pixels in that order, with no gap between its rows.
    bool is_packed(bool bgr) const;
    // Whether it is NV12 with no gap between the rows of either plane.
    bool is_packed_nv12() const;
    uint8_t *data() const { return plane_[0]; }

    // Row `y` as `width` pixels of 3 bytes. Float planes are rounded to 8 bits, halves to even.
    void read_row(int y, bool bgr, uint8_t *out) const;
    // `alpha`: row of a BGRA frame whose 4th bytes are taken over, or nullptr for 255.
    void write_row(int y, bool bgr, const uint8_t *row, const uint8_t *alpha) const;

    // Row `y` of plane R, G or B (0, 1, 2) of a float frame.
    float *float_row(int plane, int y) const { return reinterpret_cast<float *>(row(plane, y)); }
    uint8_t *row(int plane, int y) const { return plane_[plane] + stride_[plane] * static_cast<size_t>(y); }

    // Whether any byte between the frames' first and last ones is common.
    bool overlaps(const Frame &other) const;

  private:
    void check_plane(int plane, int plane_width, int plane_height, size_t pixel_bytes, const char *role);

    int32_t format_;
    int32_t colour_;
    int width_, height_;
    int planes_ = 0;
    uint8_t *plane_[3] = {};
    size_t stride_[3] = {};
    size_t size_[3] = {};  // bytes from a plane's first to its last one
    int64_t timestamp_;
};

}  // namespace derain
