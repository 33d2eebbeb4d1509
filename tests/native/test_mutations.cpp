// Without clang's libFuzzer: the same inputs, changed at random but the same way in every run. Sanitizer builds find
// what this reads or writes out of bounds.
//
//   test_mutations [FOLDER PROGRAM]     write what it begins with as seeds for fuzz_card or fuzz_frame, and end
#include "inputs.hpp"
#include "model_bytes.hpp"

#include <random>

namespace {

std::mt19937 random_numbers(20);

size_t below(size_t limit) {
    return std::uniform_int_distribution<size_t>(0, limit - 1)(random_numbers);
}

std::vector<uint8_t> mutated(const std::string &seed) {
    std::vector<uint8_t> bytes(seed.begin(), seed.end());
    for (size_t count = 1 + below(4); count > 0 && !bytes.empty(); --count) {
        const size_t at = below(bytes.size());
        switch (below(4)) {
            case 0: bytes[at] = static_cast<uint8_t>(below(256)); break;
            case 1: bytes[at] = static_cast<uint8_t>(bytes[at] ^ (1U << below(8))); break;
            case 2: bytes.resize(at); break;
            default: bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), 1 + below(9), bytes[at]);
        }
    }
    return bytes;
}

std::string frame_seed(int32_t format, int32_t side, uint64_t stride) {
    const int32_t numbers[4] = {format, static_cast<int32_t>(below(4)), side, side + 1};
    const uint64_t strides[3] = {stride, stride, stride};
    return std::string(reinterpret_cast<const char *>(numbers), sizeof(numbers)) +
           std::string(reinterpret_cast<const char *>(strides), sizeof(strides));
}

void write_seeds(const std::string &folder, bool frames) {
    int count = 0;
    const auto write = [&](const std::string &bytes) {
        std::ofstream(folder + "/seed" + std::to_string(count++), std::ios::binary) << bytes;
    };
    for (int32_t format = 1; frames && format <= 6; ++format) write(frame_seed(format, 9, format % 2 * 40));
    if (frames) return;
    write(std::string(1, '\0') + model_bytes("derain.card", kCard));  // the first byte chooses the reader
    write('\1' + kCard);
    write('\2' + record_text("the plan"));
}

}  // namespace

int main(int count, char **words) {
    if (count == 3) {
        write_seeds(words[1], std::string(words[2]) == "fuzz_frame");
        return 0;
    }
    const std::string model = model_bytes("derain.card", kCard), described = record_text("the plan");
    for (int i = 0; i < 2000; ++i) {
        const auto file = mutated(model), card = mutated(kCard), record = mutated(described);
        try_model_file(file.data(), file.size());
        try_card(card.data(), card.size());
        try_record(record.data(), record.size());
    }
    for (int i = 0; i < 5'000; ++i) {
        const auto side = static_cast<int32_t>(1 + below(40));
        const std::string seed =
            frame_seed(static_cast<int32_t>(1 + below(6)), side, below(2) * 4 * static_cast<size_t>(side));
        const auto frame = below(3) == 0 ? std::vector<uint8_t>(seed.begin(), seed.end()) : mutated(seed);
        try_frame(frame.data(), frame.size());
    }
}
