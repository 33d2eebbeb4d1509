// Rows of YUV pixels to rows of BGR or RGB pixels and back, in fixed-point arithmetic.
//
// The formulas are those of ITU-R BT.601-7 and BT.709-6, with luma weights Kr and Kb. In the limited range, for BT.601:
//   R = 255/219 (Y - 16) + 2 (1 - Kr) 255/224 (V - 128)           Y = 16 + 219/255 (Kr R + Kg G + Kb B)
//   B = 255/219 (Y - 16) + 2 (1 - Kb) 255/224 (U - 128)           U = 128 + 224/255 (B - Y') / (2 (1 - Kb))
//   G so that Kr R + Kg G + Kb B is the luma                      V = 128 + 224/255 (R - Y') / (2 (1 - Kr))
// with Y' the luma in 0..255; the full range has 255 in the place of 219 and 224, and 0 in the place of 16. A pixel's
// chroma serves its whole 2x2 block, and a block's chroma is that of its upper left pixel, as OpenCV has it; so the
// chroma of pixels that the network leaves alone survives the way there and back.
#pragma once

#include <derain.h>

#include <cstdint>

namespace derain {

// The largest factor is 2.12, so 16 bits hold all of them, and their rounding shifts no result by more than 0.05.
constexpr int kFractionBits = 13;

struct YuvMatrix {
    int16_t y_offset;
    int16_t luma_gain, red_v, green_u, green_v, blue_u;  // YUV to RGB
    int16_t y[3], u[3], v[3];                            // RGB to YUV, weights of R, G, B
};

// Throws Error(DERAIN_BAD_FRAME) if there is no such colour.
const YuvMatrix &yuv_matrix(int32_t colour);

// `width` pixels; `chroma_step` is 2 where U and V alternate (NV12), else 1.
void yuv_row_to_rgb(const YuvMatrix &matrix, const uint8_t *y, const uint8_t *u, const uint8_t *v, int chroma_step,
                    int width, bool bgr, uint8_t *out);

void rgb_row_to_luma(const YuvMatrix &matrix, const uint8_t *row, bool bgr, int width, uint8_t *y);

// One U and one V for every second pixel, beginning with the first.
void rgb_row_to_chroma(const YuvMatrix &matrix, const uint8_t *row, bool bgr, int width, uint8_t *u, uint8_t *v,
                       int chroma_step);

}  // namespace derain
