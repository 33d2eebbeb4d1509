// Rows of 8-bit pixels in one order of bytes to another one, and to float planes and back.
//
// `swap` exchanges the first and the third byte of each pixel, which turns BGR into RGB. Rows must not overlap, unless
// said otherwise.
#pragma once

#include <cstdint>

namespace derain {

// 3 bytes a pixel to 3, with red and blue exchanged.
void swap_row(const uint8_t *from, int width, uint8_t *to);

// 4 bytes a pixel to 3: the 4th is dropped.
void drop_alpha(const uint8_t *from, bool swap, int width, uint8_t *to);

// 3 bytes a pixel to 4; the 4th bytes are those of `alpha`, a row of 4 bytes a pixel, or 255 where it is nullptr.
// `alpha` may be `to`.
void add_alpha(const uint8_t *from, bool swap, const uint8_t *alpha, int width, uint8_t *to);

// To 0..255, halves to even, as NumPy's rint; what lies outside is clamped, and not-a-number is 0.
[[gnu::always_inline]] inline uint8_t rounded_level(float level) {
    const float low = level > 0 ? level : 0;  // not-a-number is not greater
    const float within = low < 255 ? low : 255;
    // Beside 2^23 there is no room for a fraction: the sum is rounded, and its lowest byte is the level.
    return static_cast<uint8_t>(static_cast<int32_t>(within + 8388608.0F) & 255);
}

// Three planes of values in [0, 1] to 3 bytes a pixel, in the order of the arguments, each value rounded.
void floats_to_row(const float *first, const float *second, const float *third, int width, uint8_t *to);

// The other way, for one plane: `from` is the first pixel's byte of that plane.
void row_to_floats(const uint8_t *from, int width, float *to);

// clean = strength * clean + (1 - strength) * rainy, then red by `overlay` of the rain map, in [0, 1]; 3 bytes a pixel,
// B, G, R.
void mix_row(const uint8_t *rainy, const float *rain, float strength, float overlay, int width, uint8_t *clean);

}  // namespace derain
