#include "sha256.hpp"

#include "error.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <vector>

namespace derain {
namespace {

constexpr uint32_t kRound[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

inline uint32_t turn(uint32_t word, unsigned right) {
    return word >> right | word << (32 - right);
}

inline uint32_t big_endian(const uint8_t *bytes) {
    return uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | bytes[3];
}

}  // namespace

void Sha256::block(const uint8_t *bytes) {
    uint32_t w[64];
    for (size_t t = 0; t < 16; ++t) w[t] = big_endian(bytes + 4 * t);
    for (size_t t = 16; t < 64; ++t) {
        const uint32_t s0 = turn(w[t - 15], 7) ^ turn(w[t - 15], 18) ^ w[t - 15] >> 3;
        const uint32_t s1 = turn(w[t - 2], 17) ^ turn(w[t - 2], 19) ^ w[t - 2] >> 10;
        w[t] = w[t - 16] + s0 + w[t - 7] + s1;
    }
    auto [a, b, c, d, e, f, g, h] = state_;
    for (size_t t = 0; t < 64; ++t) {
        const uint32_t s1 = turn(e, 6) ^ turn(e, 11) ^ turn(e, 25), choice = (e & f) ^ (~e & g);
        const uint32_t first = h + s1 + choice + kRound[t] + w[t];
        const uint32_t s0 = turn(a, 2) ^ turn(a, 13) ^ turn(a, 22), majority = (a & b) ^ (a & c) ^ (b & c);
        h = g;
        g = f;
        f = e;
        e = d + first;
        d = c;
        c = b;
        b = a;
        a = first + s0 + majority;
    }
    const uint32_t now[8] = {a, b, c, d, e, f, g, h};
    for (size_t i = 0; i < 8; ++i) state_[i] += now[i];
}

void Sha256::update(const void *data, size_t size) {
    const auto *bytes = static_cast<const uint8_t *>(data);
    while (size > 0) {
        const size_t filled = size_ % 64;
        const size_t count = std::min(size, 64 - filled);
        if (count == 64) {
            block(bytes);
        } else {
            std::memcpy(&pending_[filled], bytes, count);
            if (filled + count == 64) block(pending_.data());
        }
        bytes += count;
        size -= count;
        size_ += count;
    }
}

std::string Sha256::finish() {
    const uint64_t bits = size_ * 8;
    const uint8_t one = 0x80, zero = 0;
    update(&one, 1);
    while (size_ % 64 != 56) update(&zero, 1);
    uint8_t length[8];
    for (unsigned i = 0; i < 8; ++i) length[i] = static_cast<uint8_t>(bits >> (56 - 8 * i));
    update(length, sizeof(length));
    std::string digest;
    for (const uint32_t word : state_) {
        for (int shift = 28; shift >= 0; shift -= 4) digest += "0123456789abcdef"[word >> shift & 15U];
    }
    return digest;
}

std::string sha256(const std::string &text) {
    Sha256 sum;
    sum.update(text.data(), text.size());
    return sum.finish();
}

std::string sha256_of_file(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    Sha256 sum;
    std::vector<char> part(1 << 16);
    while (file.read(part.data(), static_cast<std::streamsize>(part.size())) || file.gcount() > 0) {
        sum.update(part.data(), static_cast<size_t>(file.gcount()));
    }
    if (!file.eof()) throw Error(DERAIN_BAD_MODEL, "'" + path + "' cannot be read", "", "Check the path");
    return sum.finish();
}

}  // namespace derain
