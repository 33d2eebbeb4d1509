// IEEE 754 half precision, which C++17 has no type for.
#pragma once

#include <cstdint>
#include <cstring>

namespace derain {

inline float half_to_float(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000U) << 16, magnitude = half & 0x7FFFU;
    float value;
    if (magnitude < 0x0400U) {  // denormal or zero: so many times 2^-24
        value = static_cast<float>(magnitude) * 0x1p-24F;
    } else {
        const uint32_t bits = (magnitude << 13) + (magnitude < 0x7C00U ? 112U << 23 : 224U << 23);
        std::memcpy(&value, &bits, sizeof(value));
    }
    return sign != 0 ? -value : value;
}

// To the nearest half, halves to even; what is too large becomes infinite.
inline uint16_t float_to_half(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000U);
    const uint32_t magnitude = bits & 0x7FFFFFFFU;
    if (magnitude >= 0x47800000U) return sign | (magnitude > 0x7F800000U ? 0x7E00U : 0x7C00U);  // 65536 and more
    if (magnitude < 0x38800000U) {  // denormal: adding 1/2 leaves so many times 2^-24 in the lowest bits, rounded
        float shifted;
        std::memcpy(&shifted, &magnitude, sizeof(shifted));
        shifted += 0.5F;
        std::memcpy(&bits, &shifted, sizeof(bits));
        return static_cast<uint16_t>(sign | (bits - 0x3F000000U));
    }
    return static_cast<uint16_t>(sign | ((magnitude - (112U << 23) + 0x0FFFU + (magnitude >> 13 & 1U)) >> 13));
}

}  // namespace derain
