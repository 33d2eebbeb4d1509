// SHA-256 (FIPS 180-4), by which an engine file is known to be whole.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace derain {

class Sha256 {
  public:
    void update(const void *data, size_t size);

    // The digest of all that was given, 64 hexadecimal digits; nothing can be added afterwards.
    std::string finish();

  private:
    void block(const uint8_t *bytes);

    std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<uint8_t, 64> pending_{};
    uint64_t size_ = 0;
};

std::string sha256(const std::string &text);

// Of a file. Throws Error(DERAIN_BAD_MODEL) if it cannot be read.
std::string sha256_of_file(const std::string &path);

}  // namespace derain
