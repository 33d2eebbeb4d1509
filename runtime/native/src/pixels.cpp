#include "pixels.hpp"

#include "vectorise.hpp"

#include <cstring>

namespace derain {
namespace {

// A function that is compiled for a CPU of its own cannot be a template, but it can consist of one.
template <int First>
[[gnu::always_inline]] inline void drop(const uint8_t *__restrict from, int width, uint8_t *__restrict to) {
    for (int x = 0; x < width; ++x) {
        to[3 * x] = from[4 * x + First];
        to[3 * x + 1] = from[4 * x + 1];
        to[3 * x + 2] = from[4 * x + 2 - First];
    }
}

// A pixel is stored at once: then the loop is vectorised for all CPUs.
[[gnu::always_inline]] inline void store(int first, int second, int third, int fourth, uint8_t *to) {
    const uint8_t bytes[4] = {static_cast<uint8_t>(first), static_cast<uint8_t>(second), static_cast<uint8_t>(third),
                              static_cast<uint8_t>(fourth)};
    std::memcpy(to, bytes, 4);
}

template <int First>
[[gnu::always_inline]] inline void add(const uint8_t *__restrict from, int width, uint8_t *__restrict to) {
    for (int x = 0; x < width; ++x) {
        store(from[3 * x + First], from[3 * x + 1], from[3 * x + 2 - First], 255, to + 4 * x);
    }
}

// Where `alpha` is `to`, the 4th byte is read before it is written again.
template <int First>
[[gnu::always_inline]] inline void add_with(const uint8_t *__restrict from, const uint8_t *alpha, int width,
                                            uint8_t *to) {
    for (int x = 0; x < width; ++x) {
        store(from[3 * x + First], from[3 * x + 1], from[3 * x + 2 - First], alpha[4 * x + 3], to + 4 * x);
    }
}

[[gnu::always_inline]] inline uint8_t mixed(int rainy, int clean, float strength, float paint, float colour) {
    const float mixture = static_cast<float>(rainy) + strength * static_cast<float>(clean - rainy);
    const float painted = mixture + paint * (colour - mixture);
    return static_cast<uint8_t>(static_cast<int32_t>(painted + 0.5F));
}

}  // namespace

DERAIN_PIXEL_LOOP void swap_row(const uint8_t *__restrict from, int width, uint8_t *__restrict to) {
    for (int x = 0; x < width; ++x) {
        to[3 * x] = from[3 * x + 2];
        to[3 * x + 1] = from[3 * x + 1];
        to[3 * x + 2] = from[3 * x];
    }
}

DERAIN_PIXEL_LOOP void drop_alpha(const uint8_t *from, bool swap, int width, uint8_t *to) {
    swap ? drop<2>(from, width, to) : drop<0>(from, width, to);
}

DERAIN_PIXEL_LOOP void add_alpha(const uint8_t *from, bool swap, const uint8_t *alpha, int width, uint8_t *to) {
    if (alpha == nullptr) {
        swap ? add<2>(from, width, to) : add<0>(from, width, to);
    } else {
        swap ? add_with<2>(from, alpha, width, to) : add_with<0>(from, alpha, width, to);
    }
}

DERAIN_PIXEL_LOOP void floats_to_row(const float *__restrict first, const float *__restrict second,
                                     const float *__restrict third, int width, uint8_t *__restrict to) {
    for (int x = 0; x < width; ++x) {
        to[3 * x] = rounded_level(first[x] * 255.0F);
        to[3 * x + 1] = rounded_level(second[x] * 255.0F);
        to[3 * x + 2] = rounded_level(third[x] * 255.0F);
    }
}

DERAIN_PIXEL_LOOP void row_to_floats(const uint8_t *__restrict from, int width, float *__restrict to) {
    for (int x = 0; x < width; ++x) to[x] = static_cast<float>(from[3 * x]) * (1.0F / 255.0F);
}

DERAIN_PIXEL_LOOP void mix_row(const uint8_t *__restrict rainy, const float *__restrict rain, float strength,
                               float overlay, int width, uint8_t *__restrict clean) {
    for (int x = 0; x < width; ++x) {
        const float seen = rain[x] > 0 ? rain[x] : 0;  // not-a-number is not greater
        const float paint = overlay * (seen < 1 ? seen : 1);
        clean[3 * x] = mixed(rainy[3 * x], clean[3 * x], strength, paint, 0);
        clean[3 * x + 1] = mixed(rainy[3 * x + 1], clean[3 * x + 1], strength, paint, 0);
        clean[3 * x + 2] = mixed(rainy[3 * x + 2], clean[3 * x + 2], strength, paint, 255);
    }
}

}  // namespace derain
